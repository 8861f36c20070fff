"""Scores of probes with candidates: against plain loops, in blocks and shards, by hand."""

from collections.abc import Iterator
from itertools import product
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest

from cldmray.errors import BadInputError
from cldmray.gallery.chance import ranks_and_chance
from cldmray.gallery.protocols import REFERENCES, EmbeddingSet, Gallery, Protocol
from cldmray.gallery.ranking import rank_scores
from cldmray.gallery.scores import (
    SAME_SCORE,
    EmbeddingScores,
    ScoreBlock,
    Scores,
    scores_together,
    shards_together,
    tie_resolved_blocks,
)
from cldmray.hashing import unit_hash


@pytest.fixture(autouse=True)
def blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cldmray.gallery.scores.LEAST_PROBES", 1)


GRID = list(product(get_args(Protocol), get_args(Gallery)))
every_protocol = pytest.mark.parametrize(("protocol", "gallery"), GRID)


def crowd(seed: int = 0) -> tuple[EmbeddingSet, EmbeddingSet]:
    """Probes and images of 9 people with 1 to 8 images each, in no order."""
    random = np.random.default_rng(seed)
    rows = [(f"s{p}-{n}", f"person {p}") for p in range(9) for n in range(1 + p * 7 // 8)]
    rows = [rows[place] for place in random.permutation(len(rows))]
    ids, identities = (np.array([row[column] for row in rows]) for column in (0, 1))
    images = random.normal(size=(len(rows), 8))
    moved = images + 0.5 * random.normal(size=images.shape)
    images, moved = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (images, moved))
    taken = random.permutation(len(rows))[: len(rows) * 2 // 3]
    return (
        EmbeddingSet(ids[taken], identities[taken], moved[taken].astype(np.float32)),
        EmbeddingSet(ids, identities, images.astype(np.float32)),
    )


def table(scores: Scores) -> npt.NDArray[np.float32]:
    """All blocks, which must hold each probe once and in order."""
    blocks = list(scores.blocks())
    rows = np.concatenate([block.rows for block in blocks])
    assert rows.tolist() == list(range(len(scores.mated_columns)))
    return np.concatenate([block.scores for block in blocks])


def twin(
    probes: EmbeddingSet, references: EmbeddingSet, protocol: Protocol, gallery: Gallery
) -> dict[str, list[float]]:
    """docs/protocols.md as plain loops: scores with every person, by the probe's sample."""
    gallery_identities = sorted(set(references.identities.tolist()))
    result = {}
    for sample, own_identity, probe in zip(
        probes.sample_ids.tolist(), probes.identities.tolist(), probes.vectors, strict=True
    ):
        scores = []
        for identity in gallery_identities:
            own = [
                (unit_hash("reference", name), name, vector)
                for name, owner, vector in zip(
                    references.sample_ids.tolist(),
                    references.identities.tolist(),
                    references.vectors,
                    strict=True,
                )
                if owner == identity
            ]
            own.sort(key=lambda entry: entry[0])
            if identity == own_identity:
                source = [entry for entry in own if entry[1] == sample]
                own = [entry for entry in own if entry[1] != sample]
                own = source + own if gallery == "source_included" else own
            products = [float(probe @ entry[2]) for entry in own[: REFERENCES[protocol]]]
            scores.append(max(products, default=np.nan))
        if not np.isnan(scores).any():
            result[sample] = scores
    return result


def views(gallery: Gallery, seed: int = 0) -> tuple[EmbeddingSet, EmbeddingSet]:
    probes, images = crowd(seed)
    return (probes, probes) if gallery == "anonymized_only" else (probes, images)


@every_protocol
def test_against_plain_loops(protocol: Protocol, gallery: Gallery) -> None:
    probes, references = views(gallery)
    scores = EmbeddingScores(probes, references, protocol, gallery)
    expected = twin(probes, references, protocol, gallery)
    assert scores.sample_ids.tolist() == list(expected)
    assert len(expected) == len(probes.sample_ids) or gallery != "source_included"
    np.testing.assert_allclose(table(scores), list(expected.values()), atol=1e-6)
    assert scores.gallery_identities.tolist() == sorted(set(references.identities.tolist()))
    assert scores.identities.tolist() == scores.gallery_identities[scores.mated_columns].tolist()


@every_protocol
@pytest.mark.parametrize("shard_rows", [1, 2, 7])
def test_shards_and_blocks_change_nothing(
    protocol: Protocol, gallery: Gallery, shard_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = EmbeddingScores(*views(gallery), protocol, gallery)
    expected, ranks = table(whole), rank_scores(whole)
    monkeypatch.setattr("cldmray.gallery.scores.CELLS", 30)
    parts = EmbeddingScores(*views(gallery), protocol, gallery, shard_rows=shard_rows)
    assert len(list(parts.blocks())) > 3
    np.testing.assert_allclose(table(parts), expected, atol=3e-7)
    for column, again in zip(rank_scores(parts), ranks, strict=True):
        np.testing.assert_array_equal(column, again)


@pytest.mark.parametrize("shard_rows", [1, 5, 1000])
def test_one_product_gives_all_protocols_and_galleries(
    shard_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cldmray.gallery.scores.CELLS", 60)
    of_originals = [place for place in GRID if place[1] != "anonymized_only"]
    given = views("source_excluded")
    members = [EmbeddingScores(*given, *place, shard_rows=shard_rows) for place in of_originals]
    n_blocks, parts = shards_together(members)
    shards = list(parts)
    assert len(shards) == n_blocks > 2
    blocks = [list(scores_together(shard)) for shard in shards]
    for number, place in enumerate(of_originals):
        expected = twin(*given, *place)
        samples = [sample for shard in shards for sample in shard[number].sample_ids.tolist()]
        assert samples == list(expected)
        scores = np.concatenate([block[number] for block in blocks])
        np.testing.assert_allclose(scores, list(expected.values()), atol=1e-6)


def test_a_block_may_lack_probes_in_some_gallery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cldmray.gallery.scores.CELLS", 3)
    images = circle(ann1=0, bob1=30, bob2=80)
    members = [
        EmbeddingScores(images, images, "full_ref", gallery)
        for gallery in ("source_excluded", "source_included")
    ]
    _, shards = shards_together(members)
    sizes = [[len(block) for block in scores_together(shard)] for shard in shards]
    assert sizes == [[0, 1], [1, 1], [1, 1]], "Ann has no other image"
    (excluded, chance), (included, _) = ranks_and_chance(members)
    assert excluded.sample_ids.tolist() == ["bob1", "bob2"]
    assert included.sample_ids.tolist() == ["ann1", "bob1", "bob2"]
    assert chance.permuted.tolist() == [0, 1], "the first is closer to Ann, whom no probe shows"


@every_protocol
def test_the_order_of_rows_does_not_matter(protocol: Protocol, gallery: Gallery) -> None:
    probes, references = views(gallery)
    back = [EmbeddingSet(v.sample_ids[::-1], v.identities[::-1], v.vectors[::-1])
            for v in (probes, references)]  # fmt: skip
    scores = EmbeddingScores(probes, references, protocol, gallery)
    reverse = EmbeddingScores(back[0], back[1], protocol, gallery)
    assert reverse.sample_ids.tolist() == scores.sample_ids.tolist()[::-1]
    np.testing.assert_allclose(table(reverse)[::-1], table(scores), atol=3e-7)


def test_equal_to_plain_products_of_a_large_gallery() -> None:
    random = np.random.default_rng(3)
    vectors = random.normal(size=(900, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    samples = np.array([f"s{number}" for number in range(900)])
    identities = np.array([f"person {number % 150:03d}" for number in range(900)])
    views = EmbeddingSet(samples, identities, vectors)
    products = np.where(np.eye(900, dtype=bool), -np.inf, vectors @ vectors.T)
    best = np.stack([products[:, identities == name].max(1) for name in sorted({*identities})], 1)
    result = table(EmbeddingScores(views, views, "full_ref", "source_excluded", shard_rows=77))
    np.testing.assert_allclose(result, best, atol=3e-7)


def unit(degrees: float) -> list[float]:
    return [float(np.cos(np.deg2rad(degrees))), float(np.sin(np.deg2rad(degrees)))]


def circle(**angles: float) -> EmbeddingSet:
    """Samples such as ``ann1``, at these angles."""
    gallery_identities = np.array([name[:3] for name in angles])
    vectors = np.array([unit(angle) for angle in angles.values()], np.float32)
    return EmbeddingSet(np.array(list(angles)), gallery_identities, vectors)


class TestAnonymizedOnly:
    VIEW = circle(ann1=0, ann2=60, ann3=90, bob1=120, bob2=150, cat1=30)

    def scores(self, protocol: Protocol) -> EmbeddingScores:
        return EmbeddingScores(self.VIEW, self.VIEW, protocol, "anonymized_only")

    def test_full_reference_by_hand(self) -> None:
        scores = self.scores("full_ref")
        assert scores.sample_ids.tolist() == ["ann1", "ann2", "ann3", "bob1", "bob2"]
        nearest = [[60, 120, 30], [30, 60, 30], [30, 30, 60], [30, 30, 90], [60, 30, 120]]
        np.testing.assert_allclose(table(scores), np.cos(np.deg2rad(nearest)), atol=1e-6)
        assert rank_scores(scores).n_higher.tolist() == [1, 0, 0, 0, 0]
        assert rank_scores(scores).n_tied.tolist() == [0, 1, 1, 1, 0]

    def test_the_only_image_is_a_reference_for_others(self) -> None:
        assert self.scores("single_ref").gallery_identities.tolist() == ["ann", "bob", "cat"]

    def test_an_image_is_never_its_own_reference(self) -> None:
        for protocol in get_args(Protocol):
            own = table(self.scores(protocol))
            assert own[np.arange(5), [0, 0, 0, 1, 1]].max() < 0.9

    def test_a_sample_twice_is_refused(self) -> None:
        twice = EmbeddingSet(
            np.array(["ann1", "ann1", "bob1"]),
            np.array(["ann", "ann", "bob"]),
            self.VIEW.vectors[:3],
        )
        with pytest.raises(BadInputError, match="ann1 .* more than once"):
            EmbeddingScores(twice, twice, "full_ref", "anonymized_only")


class Given(Scores):
    """Scores that are written down."""

    def __init__(self, own: list[int], blocks: list[Any]) -> None:
        self.mated_columns = np.array(own)
        self.gallery_identities = np.array([f"p{column}" for column in range(len(blocks[0][0]))])
        self.identities = self.gallery_identities[self.mated_columns]
        self.sample_ids = np.array([f"s{row}" for row in range(len(own))])
        self._blocks = blocks

    def blocks(self) -> Iterator[ScoreBlock]:
        start = 0
        for block in self._blocks:
            rows = np.arange(start, start + len(block))
            yield ScoreBlock(rows, np.array(block, np.float64))
            start += len(block)


def test_settled_blocks() -> None:
    near = SAME_SCORE / 2
    scores = Given(
        [0, 2, 1], [[[0.5, 0.5 + near, 0.5 - 3 * near]], [[1, 2, 3], [-np.inf, 0, near]]]
    )
    first, second = tie_resolved_blocks(scores)
    assert first.rows.tolist() == [0]
    assert first.scores.tolist() == [[0.5, 0.5, 0.5 - 3 * near]]
    assert second.rows.tolist() == [1, 2]
    assert second.scores.tolist() == [[1, 2, 3], [-np.inf, 0, 0]]
    ranks = rank_scores(scores)
    assert (ranks.n_higher.tolist(), ranks.n_tied.tolist()) == ([0, 0, 0], [1, 0, 1])
    assert ranks.gallery_size == 3
    assert ranks.identities.tolist() == ["p0", "p2", "p1"]
