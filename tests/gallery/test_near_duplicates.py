"""A near-duplicate of the source counts as the source, whoever asks."""

import numpy as np
import pytest

from cldmray.errors import BadInputError
from cldmray.gallery.near_duplicates import content_ids
from cldmray.gallery.protocols import EmbeddingSet, choose_references
from cldmray.gallery.scores import EmbeddingScores


def test_content_ids_join_chains() -> None:
    pairs = [("d", "e"), ("b", "c"), ("c", "a"), ("e", "f")]
    assert content_ids(pairs) == {"a": "a", "b": "a", "c": "a", "d": "d", "e": "d", "f": "d"}
    assert content_ids([]) == {}


IDS = np.array(["a1", "a2", "a3", "b1", "b2"])
NAMES = np.array(["ann", "ann", "ann", "bob", "bob"])
VECTORS = np.eye(5, dtype=np.float32)
CONTENTS = np.array(["a1", "a1", "a3", "b1", "b1"])
"""a2 is a copy of a1, and b2 of b1."""


def views(contents: np.ndarray[tuple[int], np.dtype[np.str_]] | None) -> EmbeddingSet:
    return EmbeddingSet(IDS, NAMES, VECTORS, contents)


@pytest.mark.parametrize("gallery", ["source_excluded", "anonymized_only"])
def test_a_copy_of_the_source_is_excluded_with_it(gallery: str) -> None:
    references = choose_references(views(CONTENTS), views(CONTENTS), "full_ref", gallery)  # type: ignore[arg-type]
    own = {
        str(IDS[probe]): sorted(IDS[rows].tolist())
        for probe, rows in zip(references.probe_rows, references.mated_rows, strict=True)
    }
    # Of bob nothing is left, so that his images are no probes; for others they stay references.
    assert own == {"a1": ["a3"], "a2": ["a3"], "a3": ["a1", "a2"]}
    assert sorted(IDS[references.reference_rows].tolist()) == IDS.tolist()


def test_where_the_source_is_included_its_copies_are_too() -> None:
    references = choose_references(views(CONTENTS), views(CONTENTS), "full_ref", "source_included")
    assert [len(rows) for rows in references.mated_rows] == [3, 3, 3, 2, 2]
    assert [rows[0] for rows in references.mated_rows] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("gallery", "mated"),
    [("source_excluded", [["k2"]]), ("source_included", [["k1", "k2"], ["k3"]])],
)
def test_references_from_elsewhere_have_copies_and_no_source(
    gallery: str, mated: list[list[str]]
) -> None:
    """k1 is a copy of a1's source and k3 of b1's; cat is in no reference, dan in no probe."""
    probes = EmbeddingSet(
        np.array(["a1", "b1", "c1"]), np.array(["ann", "bob", "cat"]), VECTORS[:3],
        np.array(["a1", "b1", "c1"]),
    )  # fmt: skip
    elsewhere = EmbeddingSet(
        np.array(["k1", "k2", "k3", "k4"]), np.array(["ann", "ann", "bob", "dan"]), VECTORS[:4],
        np.array(["a1", "k2", "b1", "k4"]),
    )  # fmt: skip
    references = choose_references(probes, elsewhere, "full_ref", gallery)  # type: ignore[arg-type]
    own = [elsewhere.sample_ids[rows].tolist() for rows in references.mated_rows]
    if gallery == "source_included":
        assert own[0][0] == "k1"  # the source comes first, in small galleries too
    assert [sorted(names) for names in own] == mated
    assert references.gallery_identities.tolist() == ["ann", "bob", "dan"]


def test_a_gallery_with_the_sources_of_some_probes_is_refused() -> None:
    probes = EmbeddingSet(np.array(["a1", "x1"]), np.array(["ann", "ann"]), VECTORS[:2])
    with pytest.raises(BadInputError, match="probe x1 .* has no source"):
        choose_references(probes, views(None), "full_ref", "source_excluded")


def test_without_content_ids_each_sample_is_itself() -> None:
    references = choose_references(views(None), views(None), "full_ref", "source_excluded")
    assert [len(rows) for rows in references.mated_rows] == [2, 2, 2, 1, 1]


def test_a_copy_in_the_gallery_no_longer_finds_its_source() -> None:
    vectors = VECTORS.copy()
    vectors[1] = vectors[0]
    with_copy = EmbeddingSet(IDS, NAMES, vectors)
    with_ids = EmbeddingSet(IDS, NAMES, vectors, CONTENTS)
    mated = [
        next(iter(EmbeddingScores(view, view, "full_ref", "source_excluded").blocks())).scores[0, 0]
        for view in (with_copy, with_ids)
    ]
    assert mated == [1.0, 0.0]


def test_taken_rows_keep_their_content() -> None:
    assert views(CONTENTS).take(np.array([1, 4])).contents.tolist() == ["a1", "b1"]
    assert views(None).take(np.array([1, 4])).contents.tolist() == ["a2", "b2"]


def test_each_sample_needs_a_content_id() -> None:
    with pytest.raises(BadInputError, match="content ids differ in number"):
        views(CONTENTS[:3])


def test_nobody_with_two_contents_is_told() -> None:
    same = np.array(["a1", "a1", "a1", "b1", "b1"])
    with pytest.raises(BadInputError, match="no near-duplicates"):
        choose_references(views(same), views(same), "full_ref", "source_excluded")
