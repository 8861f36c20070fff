"""Identity galleries: search, files, shards."""

import json
from pathlib import Path

import numpy as np
import pytest

from cldmray import storage
from cldmray.errors import BadInputError
from cldmray.gallery.index import GalleryIndex, ShardedGallery, open_gallery, read_metadata
from cldmray.gallery.protocols import EmbeddingSet, Strings, Vectors

SAMPLES = np.array([f"s{number}" for number in range(50)])
IDENTITIES = np.array([f"person {number // 3}" for number in range(50)])


def unit(rows: int, seed: int, dimensions: int = 8) -> Vectors:
    values = np.random.default_rng(seed).normal(size=(rows, dimensions)).astype(np.float32)
    vectors: Vectors = values / np.linalg.norm(values, axis=1, keepdims=True)
    return vectors


def names(probes: Vectors, vectors: Vectors, k: int) -> tuple[Strings, Strings]:
    """Identities and samples of the best matches, by brute force."""
    rows = np.argsort(-(probes @ vectors.T), axis=1, kind="stable")[:, :k]
    return IDENTITIES[rows], SAMPLES[rows]


@pytest.fixture
def gallery() -> GalleryIndex:
    return GalleryIndex.build(unit(50, 0), IDENTITIES, SAMPLES, recognizer="sface")


class TestSearch:
    @pytest.mark.parametrize("k", [1, 10, 50])
    def test_is_brute_force(self, gallery: GalleryIndex, k: int) -> None:
        matches = gallery.search(unit(9, 1), k)
        identities, samples = names(unit(9, 1), unit(50, 0), k)
        np.testing.assert_array_equal(matches.identities, identities)
        np.testing.assert_array_equal(matches.sample_ids, samples)
        assert (np.diff(matches.scores, axis=1) <= 0).all()

    def test_k_is_capped_and_an_empty_gallery_finds_nobody(self, gallery: GalleryIndex) -> None:
        assert gallery.search(unit(3, 1), 1000).identities.shape == (3, 50)
        empty = GalleryIndex.build(unit(0, 0), [], [])
        assert len(empty) == 0
        assert [part.shape for part in empty.search(unit(3, 1), 5)] == [(3, 0)] * 3

    def test_what_an_approximate_search_does_not_find_has_no_name(self) -> None:
        class Blind:
            kind, recall, dimensions = "ivf", 0.5, 8

            def __len__(self) -> int:
                return 50

            def search(self, probes: Vectors, k: int) -> object:
                return np.array([[0.9, -np.inf]], np.float32), np.array([[4, -1]])

        matches = GalleryIndex(Blind(), IDENTITIES, SAMPLES).search(unit(1, 1), 2)  # type: ignore[arg-type]
        assert matches.identities.tolist() == [["person 1", ""]]
        assert matches.sample_ids.tolist() == [["s4", ""]]

    def test_names_must_fit(self) -> None:
        with pytest.raises(BadInputError, match="4 embeddings do not fit 3 identities and 4"):
            GalleryIndex.build(unit(4, 0), IDENTITIES[:3], SAMPLES[:4])


class TestFiles:
    @pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
    def test_round_trip(self, tmp_path: Path, kind: str) -> None:
        gallery = GalleryIndex.build(unit(50, 0), IDENTITIES, SAMPLES, kind, recognizer="sface")
        uri = str(tmp_path / "deep" / "gallery")
        gallery.save(uri)
        opened = GalleryIndex.open(uri)
        assert opened.metadata == gallery.metadata == read_metadata(uri)
        for left, right in zip(
            gallery.search(unit(9, 1), 7), opened.search(unit(9, 1), 7), strict=True
        ):
            np.testing.assert_array_equal(left, right)
        assert json.loads(storage.read_bytes(f"{uri}/metadata.json")) == {
            "kind": kind,
            "n": 50,
            "dimensions": 8,
            "recall": gallery.metadata.recall,
            "recognizer": "sface",
            "schema_version": 1,
        }
        assert not any(b"pickle" in path.read_bytes() for path in Path(uri).iterdir())

    @pytest.mark.parametrize("name", ["metadata.json", "index.faiss", "references.parquet"])
    @pytest.mark.parametrize("content", [None, b"", b"{}", "half"])
    def test_what_is_no_gallery_is_named(
        self, gallery: GalleryIndex, tmp_path: Path, name: str, content: bytes | str | None
    ) -> None:
        uri = str(tmp_path / "mine")
        gallery.save(uri)
        path = tmp_path / "mine" / name
        if content is None:
            path.unlink()
        else:
            whole = path.read_bytes()
            path.write_bytes(content if isinstance(content, bytes) else whole[: len(whole) // 2])
        with pytest.raises(BadInputError, match="no gallery at .*mine"):
            GalleryIndex.open(uri)

    def test_files_that_do_not_fit_each_other(self, gallery: GalleryIndex, tmp_path: Path) -> None:
        uri = str(tmp_path / "mine")
        gallery.save(uri)
        values = json.loads(storage.read_bytes(f"{uri}/metadata.json"))
        storage.write_bytes(f"{uri}/metadata.json", json.dumps(values | {"n": 49}).encode())
        with pytest.raises(BadInputError, match="do not fit"):
            GalleryIndex.open(uri)
        later = json.dumps(values | {"schema_version": 2})
        storage.write_bytes(f"{uri}/metadata.json", later.encode())
        with pytest.raises(BadInputError, match="schema version 2, this is 1; build it again"):
            GalleryIndex.open(uri)


class TestShards:
    def blocks(self) -> list[EmbeddingSet]:
        parts = [slice(0, 20), slice(20, 20), slice(20, 50)]
        return [EmbeddingSet(SAMPLES[p], IDENTITIES[p], unit(50, 0)[p]) for p in parts]

    def test_they_find_what_one_gallery_finds(self, gallery: GalleryIndex, tmp_path: Path) -> None:
        uri = str(tmp_path / "large")
        built = ShardedGallery.build(self.blocks(), uri, recognizer="sface")
        expected = gallery.search(unit(9, 1), 12)
        opened = open_gallery(uri)
        assert isinstance(opened, ShardedGallery) and opened.uris == built.uris
        assert opened.recognizer == "sface" and len(opened.uris) == 3
        merged = opened.merge()
        assert len(merged) == 50 and merged.metadata == gallery.metadata
        for searched in (opened, merged):
            matches = searched.search(unit(9, 1), 12)
            np.testing.assert_array_equal(matches.sample_ids, expected.sample_ids)
            np.testing.assert_array_equal(matches.identities, expected.identities)
            np.testing.assert_allclose(matches.scores, expected.scores, atol=1e-6)
        assert opened.search(unit(2, 1), 1000).scores.shape == (2, 50)

    def test_a_gallery_in_one_piece_opens_as_such(
        self, gallery: GalleryIndex, tmp_path: Path
    ) -> None:
        gallery.save(str(tmp_path))
        assert isinstance(open_gallery(str(tmp_path)), GalleryIndex)

    def test_errors(self, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match="no gallery shards to merge"):
            GalleryIndex.merge([])
        sizes = [GalleryIndex.build(unit(2, 0, size), ["a", "b"], ["s", "t"]) for size in (4, 8)]
        with pytest.raises(BadInputError, match=r"different dimensions: \[4, 8\]"):
            GalleryIndex.merge(sizes)
        encoders = [
            GalleryIndex.build(unit(2, 0), ["a", "b"], ["s", "t"], recognizer=name)
            for name in ("sface", "dlib")
        ]
        with pytest.raises(BadInputError, match="different recognizer"):
            GalleryIndex.merge(encoders)
        with pytest.raises(BadInputError, match="no gallery shards at"):
            open_gallery(str(tmp_path))
