import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cldmray import storage
from cldmray.errors import BadInputError, MissingDependencyError
from cldmray.gallery.index import Codes, Floats, GalleryIndex, load_faiss


def unit(rows: int, seed: int, dimensions: int = 8) -> Floats:
    found = np.random.default_rng(seed).normal(size=(rows, dimensions)).astype(np.float32)
    unit_norm: Floats = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit_norm


def brute_force(probes: Floats, vectors: Floats, labels: Codes, k: int) -> tuple[Floats, Codes]:
    scores = probes @ vectors.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), labels[order]


@pytest.fixture
def labels() -> Codes:
    return np.random.default_rng(5).permutation(50) * 7


@pytest.fixture
def index(labels: Codes) -> GalleryIndex:
    return GalleryIndex(unit(50, 0), labels)


class TestSearch:
    @pytest.mark.parametrize("k", [1, 10, 50])
    def test_is_brute_force(self, index: GalleryIndex, labels: Codes, k: int) -> None:
        scores, found = index.search(unit(9, 1), k)
        expected, expected_labels = brute_force(unit(9, 1), unit(50, 0), labels, k)
        np.testing.assert_allclose(scores, expected, atol=1e-6)
        np.testing.assert_array_equal(found, expected_labels)

    def test_all_inner_products(self, index: GalleryIndex) -> None:
        found = index.inner_products(unit(9, 1))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, unit(9, 1) @ unit(50, 0).T, atol=1e-6)
        assert index.inner_products(unit(0, 1)).shape == (0, 50)
        empty = GalleryIndex(unit(0, 0), np.zeros(0, np.int64))
        assert empty.inner_products(unit(9, 1)).shape == (9, 0)
        with pytest.raises(BadInputError, match="probes of 5 dimensions in a gallery of 8"):
            index.inner_products(unit(2, 1, 5))

    def test_k_is_capped(self, index: GalleryIndex) -> None:
        scores, found = index.search(unit(3, 1), 1000)
        assert scores.shape == found.shape == (3, 50)
        assert (found >= 0).all()

    def test_one_label_may_have_many_vectors(self) -> None:
        vectors = np.eye(3, dtype=np.float32)
        index = GalleryIndex(vectors, np.array([4, 9, 4]))
        assert len(index) == 3
        _, found = index.search(vectors, 1)
        np.testing.assert_array_equal(found[:, 0], [4, 9, 4])

    def test_takes_other_layouts_and_types(self, labels: Codes) -> None:
        vectors = unit(50, 0)
        index = GalleryIndex(np.asfortranarray(vectors), labels.astype(np.int32))
        _, found = index.search(np.asfortranarray(vectors), 1)
        np.testing.assert_array_equal(found[:, 0], labels)

    def test_an_empty_index_finds_nothing(self) -> None:
        index = GalleryIndex(unit(0, 0), np.zeros(0, np.int64))
        scores, found = index.search(unit(3, 1), 5)
        assert len(index) == 0
        assert scores.shape == found.shape == (3, 0)


class TestFiles:
    def test_round_trip(self, index: GalleryIndex, tmp_path: Path) -> None:
        uri = str(tmp_path / "deep" / "gallery.faiss")
        index.save(uri)
        opened = GalleryIndex.open(uri)
        assert len(opened) == 50
        for one, other in zip(
            index.search(unit(9, 1), 7), opened.search(unit(9, 1), 7), strict=True
        ):
            np.testing.assert_array_equal(one, other)

    @pytest.mark.parametrize("content", [None, b"", b"not an index", "half"])
    def test_what_is_no_index_is_named(
        self, index: GalleryIndex, tmp_path: Path, content: bytes | str | None
    ) -> None:
        uri = str(tmp_path / "gallery.faiss")
        if content == "half":
            index.save(uri)
            content = storage.read_bytes(uri)[:900]
        if isinstance(content, bytes):
            storage.write_bytes(uri, content)
        with pytest.raises(BadInputError, match="gallery.faiss"):
            GalleryIndex.open(uri)

    def test_another_kind_of_index_is_refused(self, tmp_path: Path) -> None:
        faiss = load_faiss()
        uri = str(tmp_path / "flat.faiss")
        faiss.write_index(faiss.IndexFlatL2(4), uri)
        with pytest.raises(BadInputError, match="flat.faiss"):
            GalleryIndex.open(uri)


class TestMerge:
    def test_finds_what_one_index_finds(self, labels: Codes, tmp_path: Path) -> None:
        vectors = unit(50, 0)
        shards = [
            GalleryIndex(vectors[part], labels[part])
            for part in (slice(0, 20), slice(20, 20), slice(20, 50))
        ]
        shards[0].save(str(tmp_path / "shard"))
        shards[0] = GalleryIndex.open(str(tmp_path / "shard"))
        merged = GalleryIndex.merge(shards)
        assert len(merged) == 50
        assert [len(shard) for shard in shards] == [20, 0, 30]
        expected = brute_force(unit(9, 1), vectors, labels, 12)
        scores, found = merged.search(unit(9, 1), 12)
        np.testing.assert_allclose(scores, expected[0], atol=1e-6)
        np.testing.assert_array_equal(found, expected[1])

    def test_errors(self) -> None:
        with pytest.raises(BadInputError, match="no gallery shards"):
            GalleryIndex.merge([])
        empty = GalleryIndex(unit(0, 0), np.zeros(0, np.int64))
        with pytest.raises(BadInputError, match="empty"):
            GalleryIndex.merge([empty])
        with pytest.raises(BadInputError, match="dimensions"):
            GalleryIndex.merge([GalleryIndex(unit(2, 0, size), np.arange(2)) for size in (4, 8)])


class TestErrors:
    def test_labels_must_fit(self) -> None:
        with pytest.raises(BadInputError, match=r"\(4, 8\) vectors do not fit 3 labels"):
            GalleryIndex(unit(4, 0), np.arange(3))
        with pytest.raises(BadInputError, match="do not fit"):
            GalleryIndex(unit(4, 0)[0], np.arange(8))

    def test_probes_of_another_length(self, index: GalleryIndex) -> None:
        with pytest.raises(BadInputError, match="4 dimensions .* 8"):
            index.search(unit(3, 0, 4), 1)

    def test_faiss_absent_or_emptied(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "faiss", None)
        with pytest.raises(MissingDependencyError, match=r"cldmray\[cpu\]"):
            load_faiss()
        monkeypatch.setitem(sys.modules, "faiss", ModuleType("faiss"))
        with pytest.raises(MissingDependencyError, match="pip uninstall"):
            load_faiss()
