from itertools import product
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest

from cldmray.errors import BadInputError
from cldmray.gallery.protocols import REFERENCES, EmbeddingSet, Gallery, Protocol
from cldmray.gallery.ranking import Ranks, rank_probes
from cldmray.hashing import identity_hash, unit_hash

GRID = list(product(get_args(Protocol), get_args(Gallery)))
every_protocol = pytest.mark.parametrize(("protocol", "gallery"), GRID)


def embedded(rows: list[tuple[str, str]], vectors: npt.NDArray[Any]) -> EmbeddingSet:
    """Rows are (sample id, identity)."""
    ids, identities = (np.array([row[column] for row in rows]) for column in (0, 1))
    return EmbeddingSet(ids, identities, np.asarray(vectors, np.float32))


def twin(
    probes: EmbeddingSet, images: EmbeddingSet, protocol: Protocol, gallery: Gallery
) -> list[tuple[str, int, int]]:
    """docs/protocols.md as plain loops: (sample, better, ties) of every probe that counts."""
    gallery_identities = sorted(set(images.identities.tolist()))
    limit = REFERENCES[protocol]
    result = []
    for sample, own_identity, vector in zip(
        probes.sample_ids.tolist(), probes.identities.tolist(), probes.vectors, strict=True
    ):
        best = {}
        for identity in gallery_identities:
            own = [
                (unit_hash("reference", references), references, other)
                for references, name, other in zip(
                    images.sample_ids.tolist(),
                    images.identities.tolist(),
                    images.vectors,
                    strict=True,
                )
                if name == identity
            ]
            references = sorted(own, key=lambda entry: entry[0])
            if identity == own_identity:
                source = [entry for entry in references if entry[1] == sample]
                references = [entry for entry in references if entry[1] != sample]
                if gallery == "source_included":
                    references = source + references
            scores = [float(np.dot(vector, entry[2])) for entry in references[:limit]]
            best[identity] = max(scores, default=None)
        true = best.pop(own_identity)
        if true is None:
            continue
        n_tied = sum(score is not None and abs(score - true) <= 1e-6 for score in best.values())
        n_higher = sum(score is not None and score - true > 1e-6 for score in best.values())
        result.append((sample, n_higher, n_tied))
    return result


def as_rows(ranks: Ranks) -> list[tuple[str, int, int]]:
    columns = (ranks.sample_ids.tolist(), ranks.n_higher.tolist(), ranks.n_tied.tolist())
    return list(zip(*columns, strict=True))


def crowd(kind: str, seed: int = 0) -> tuple[EmbeddingSet, EmbeddingSet]:
    """Probes and images of 12 people with 1 to 9 images each, in no order."""
    random = np.random.default_rng(seed)
    rows = [(f"s{p}-{n}", f"person {p}") for p in range(12) for n in range(1 + p * 8 // 11)]
    rows = [rows[place] for place in random.permutation(len(rows))]
    vectors: Any
    if kind == "collapsed":
        vectors = np.tile(random.normal(size=16), (len(rows), 1))
        vectors += random.normal(size=vectors.shape) * 1e-9
    elif kind == "coarse":
        vectors = random.integers(-1, 2, (len(rows), 3)) + 0.0
        vectors[np.abs(vectors).sum(1) == 0] = 1
    else:
        vectors = random.normal(size=(len(rows), 16))
    images = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    moved: Any = random.permutation(images)
    if kind == "random":
        moved = images + random.normal(size=images.shape) * 0.4
        moved = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    taken = random.permutation(len(rows))[: len(rows) * 2 // 3]
    return embedded([rows[i] for i in taken], moved[taken]), embedded(rows, images)


class TestAgainstPlainLoops:
    @every_protocol
    @pytest.mark.parametrize("kind", ["random", "coarse", "collapsed"])
    def test_same_ranks(self, kind: str, protocol: Protocol, gallery: Gallery) -> None:
        probes, images = crowd(kind)
        ranks = rank_probes(probes, images, protocol, gallery)
        assert as_rows(ranks) == twin(probes, images, protocol, gallery)
        assert ranks.gallery_size == 12
        assert ranks.n_higher.max() > 0 or kind == "collapsed"
        assert ranks.n_tied.max() > 0 or kind == "random"

    @every_protocol
    def test_a_collapsed_encoder_is_at_chance(self, protocol: Protocol, gallery: Gallery) -> None:
        ranks = rank_probes(*crowd("collapsed"), protocol, gallery)
        assert not ranks.n_higher.any()
        assert (ranks.n_tied == 11).all()

    @every_protocol
    def test_the_order_of_rows_does_not_matter(self, protocol: Protocol, gallery: Gallery) -> None:
        probes, images = crowd("random")
        back = EmbeddingSet(images.sample_ids[::-1], images.identities[::-1], images.vectors[::-1])
        assert as_rows(rank_probes(probes, back, protocol, gallery)) == as_rows(
            rank_probes(probes, images, protocol, gallery)
        )

    def test_searching_in_parts_changes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        probes, images = crowd("random")
        whole = as_rows(rank_probes(probes, images, "full_ref", "source_excluded"))
        monkeypatch.setattr("cldmray.gallery.scores.CELLS", 150)
        assert as_rows(rank_probes(probes, images, "full_ref", "source_excluded")) == whole


A, B, C = [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]
"""Inner products: A.B = 0, A.C = 0.6, B.C = 0.8."""


class TestByHand:
    ROWS = (("a1", "Ada"), ("a2", "Ada"), ("b1", "Ben"))

    def ranks(self, probe: list[float], gallery: Gallery) -> tuple[int, int]:
        """Standing of Ada for a probe of image a1, where a1 = A, a2 = B and Ben's b1 = C."""
        images = embedded(list(self.ROWS), np.array([A, B, C]))
        probes = embedded([("a1", "Ada")], np.array([probe]))
        result = rank_probes(probes, images, "full_ref", gallery)
        return int(result.n_higher[0]), int(result.n_tied[0])

    def test_the_source_is_found_only_where_it_is_in_the_gallery(self) -> None:
        assert self.ranks(A, "source_included") == (0, 0)
        assert self.ranks(A, "source_excluded") == (1, 0)

    def test_the_other_image_counts(self) -> None:
        assert self.ranks(B, "source_excluded") == (0, 0)
        assert self.ranks(C, "source_included") == (1, 0)

    def test_equal_scores_are_ties(self) -> None:
        images = embedded(list(self.ROWS), np.array([A, B, B]))
        probes = embedded([("a1", "Ada")], np.array([C]))
        result = rank_probes(probes, images, "full_ref", "source_excluded")
        assert as_rows(result) == [("a1", 0, 1)]

    def test_single_reference_with_the_source_is_the_source(self) -> None:
        images = embedded(list(self.ROWS), np.array([A, B, C]))
        probes = embedded([("a1", "Ada"), ("a2", "Ada")], np.array([B, B]))
        result = rank_probes(probes, images, "single_ref", "source_included")
        assert as_rows(result) == [("a1", 1, 0), ("a2", 0, 0)]

    def test_few_references_are_five(self) -> None:
        names = [f"a{number}" for number in range(8)]
        order = sorted(names, key=lambda name: unit_hash("reference", name))
        rows = [*((name, "Ada") for name in names), ("b", "Ben")]
        for place, alike in enumerate(order[1:], start=1):
            vectors = np.array([B if name == alike else [-1.0, 0.0] for name, _ in rows])
            vectors[-1] = C
            result = rank_probes(
                embedded([(order[0], "Ada")], np.array([B])),
                embedded(rows, vectors),
                "few_ref",
                "source_excluded",
            )
            assert result.n_higher[0] == (0 if place <= 5 else 1)


class TestOneImage:
    def test_counts_only_with_its_source(self) -> None:
        rows = [("a1", "Ada"), ("b1", "Ben"), ("b2", "Ben")]
        both = embedded(rows, np.array([A, B, B]))
        excluded = rank_probes(both, both, "full_ref", "source_excluded")
        assert excluded.sample_ids.tolist() == ["b1", "b2"]
        assert excluded.identities.tolist() == ["Ben", "Ben"]
        assert excluded.gallery_size == 2
        included = rank_probes(both, both, "full_ref", "source_included")
        assert included.sample_ids.tolist() == ["a1", "b1", "b2"]

    def test_nobody_left(self) -> None:
        both = embedded([("a1", "Ada"), ("b1", "Ben")], np.array([A, B]))
        with pytest.raises(BadInputError, match="at least two images"):
            rank_probes(both, both, "full_ref", "source_excluded")


class TestErrors:
    def test_one_person(self) -> None:
        images = embedded([("a1", "Ada"), ("a2", "Ada")], np.array([A, B]))
        with pytest.raises(BadInputError, match="fewer than two people"):
            rank_probes(images, images, "full_ref", "source_excluded")

    @pytest.mark.parametrize("probe", [("a9", "Ada"), ("a1", "Cleo"), ("b1", "Ada")])
    def test_a_probe_without_its_source(self, probe: tuple[str, str]) -> None:
        images = embedded([("a1", "Ada"), ("a2", "Ada"), ("b1", "Ben")], np.array([A, B, C]))
        with pytest.raises(
            BadInputError, match=f"{probe[0]} of person {identity_hash(probe[1])} has no"
        ):
            probes = embedded([("b1", "Ben"), probe], np.array([C, A]))
            rank_probes(probes, images, "full_ref", "source_excluded")

    def test_lengths_differ(self) -> None:
        with pytest.raises(BadInputError, match="differ in number"):
            EmbeddingSet(np.array(["a"]), np.array(["Ada", "Ben"]), np.array([A, B], np.float32))

    def test_a_sample_twice(self) -> None:
        rows = [("a1", "Ada"), ("a1", "Ada"), ("b1", "Ben")]
        images = embedded(rows, np.array([A, B, C]))
        with pytest.raises(BadInputError, match="a1 .* more than once"):
            rank_probes(images, images, "full_ref", "source_included")

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_a_diverged_encoder_is_no_perfect_attacker(self, value: float) -> None:
        with pytest.raises(BadInputError, match="not finite"):
            embedded([("a1", "Ada"), ("b1", "Ben")], np.array([A, [value, 0.0]]))
