import math
from typing import Any

import numpy as np
import pytest

from cldmray.arrays import Images
from cldmray.attackers.nn.pairs import PairSampler, PairSet, Validation
from cldmray.errors import BadInputError
from cldmray.recognizers.base import Embeddings

IDENTITIES = [0, 0, 0, 1, 1, 2, 3, 3, 3, 3]


def blank(count: int) -> Images:
    return np.zeros((count, 4, 4, 3), np.uint8)


def pair_set(identities: list[int], avoid_source: bool, draws: int = 1) -> PairSet:
    originals = np.array(identities, np.int64)
    sources = np.tile(np.arange(len(identities)), draws)
    queries = originals[sources]
    return PairSet(
        blank(len(queries)), queries, sources, blank(len(originals)), originals, avoid_source
    )


class TestSampler:
    @pytest.mark.parametrize("avoid_source", [True, False])
    def test_pairs_are_of_one_person_and_people_differ(self, avoid_source: bool) -> None:
        pairs = pair_set(IDENTITIES, avoid_source, draws=2)
        sampler = PairSampler(pairs, 3, seed=0)
        for step in range(100):
            queries, originals = sampler.draw(step)
            identities = pairs.query_identities[queries]
            np.testing.assert_array_equal(identities, pairs.original_identities[originals])
            assert len(set(identities.tolist())) == 3

    def test_avoids_the_source_where_the_person_has_another_image(self) -> None:
        pairs = pair_set(IDENTITIES, avoid_source=True)
        sampler = PairSampler(pairs, 4, seed=0)
        for step in range(100):
            for query, original in zip(*sampler.draw(step), strict=True):
                own = pairs.query_source[query] == original
                assert own == (pairs.query_identities[query] == 2)

    def test_reaches_every_query_with_every_image_of_its_person(self) -> None:
        pairs = pair_set(IDENTITIES, avoid_source=False)
        sampler = PairSampler(pairs, 4, seed=0)
        seen = {pair for step in range(400) for pair in zip(*sampler.draw(step), strict=True)}
        identities = pairs.original_identities
        assert len(seen) == sum((identities == identity).sum() ** 2 for identity in range(4))

    def test_a_batch_depends_on_seed_and_step_only(self) -> None:
        pairs = pair_set(IDENTITIES, avoid_source=True)
        first, other = PairSampler(pairs, 4, seed=7), PairSampler(pairs, 4, seed=7, workers=2)
        for step in (5, 0, 5):
            np.testing.assert_array_equal(first.draw(step), other.draw(step))
        assert not np.array_equal(first.draw(0), first.draw(1))
        assert not np.array_equal(first.draw(0), PairSampler(pairs, 4, seed=8).draw(0))

    @pytest.mark.parametrize(
        ("batch", "workers", "expected"), [(128, 1, 4), (3, 1, 3), (3, 2, 3), (128, 3, 4)]
    )
    def test_batch_fits_the_people_whatever_the_workers(
        self, batch: int, workers: int, expected: int
    ) -> None:
        sampler = PairSampler(pair_set(IDENTITIES, True), batch, 0, workers)
        assert sampler.batch == expected
        assert len(sampler.draw(0)[0]) == expected

    def test_too_few_people(self) -> None:
        with pytest.raises(BadInputError, match="splits.attacker"):
            pair_set([0, 0, 0], True)
        with pytest.raises(BadInputError, match=r"4 attacker people .* 5 training workers"):
            PairSampler(pair_set(IDENTITIES, True), 128, 0, workers=5)


def first_pixel(images: Images) -> Embeddings:
    """Each image as the angle that its first pixel says, 0 to 90 degrees."""
    angle = images[:, 0, 0, 0] / 255 * np.pi / 2
    return np.asarray(np.stack([np.cos(angle), np.sin(angle)], 1), np.float32)


def flat(*values: int) -> Images:
    return np.array(values, np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)


def validation(**changes: Any) -> Validation:
    settings: dict[str, Any] = {
        "queries": flat(0, 60, 200),
        "query_identities": np.array([0, 0, 1]),
        "query_source": np.array([0, 1, 2]),
        "originals": flat(0, 70, 200, 65, 250),
        "original_identities": np.array([0, 0, 1, 2, 1]),
    }
    return Validation(**(settings | changes))


class TestValidation:
    @pytest.mark.parametrize("cells", [1, 10, 1000])
    def test_by_hand(self, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cldmray.attackers.nn.pairs.CELLS", cells)
        # Query 0 lies at its own source; the next best is 65 of person 2, before its own 70.
        # Query 60 loses its source 70, and 65 is nearer than 0. Query 200 finds 250.
        assert validation().rank_1(first_pixel) == pytest.approx(1 / 3)

    def test_people_with_one_image_are_not_counted(self) -> None:
        result = validation(
            queries=flat(200, 65),
            query_identities=np.array([1, 2]),
            query_source=np.array([2, 3]),
        )
        assert result.rank_1(first_pixel) == 1.0

    def test_a_teacher_embeds_the_images(self) -> None:
        angles = np.array([0.0, 80.0, 10.0, 45.0, 70.0]) * np.pi / 180
        teacher_embeddings = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
        # Queries lie at 0, 21 and 71 degrees. The first loses its source and finds 10 of person 1;
        # the second its source at 80 and finds 10; the third its source at 10 and finds 70.
        result = validation(teacher_embeddings=teacher_embeddings).rank_1(first_pixel)
        assert result == pytest.approx(1 / 3)

    def test_nobody_left(self) -> None:
        result = validation(
            queries=flat(65), query_identities=np.array([2]), query_source=np.array([3])
        )
        assert math.isnan(result.rank_1(first_pixel))
