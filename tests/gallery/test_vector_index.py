"""Vector indexes of every kind on the CPU; on GPUs by a stand-in, and on real ones if any."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cldmray.errors import BadInputError, ConfigError, MissingDependencyError
from cldmray.gallery import vector_index
from cldmray.gallery.index import GalleryIndex
from cldmray.gallery.protocols import IntArray, Vectors
from cldmray.gallery.vector_index import VectorIndex, load_faiss


def unit(rows: int, seed: int, dimensions: int = 8) -> Vectors:
    result = np.random.default_rng(seed).normal(size=(rows, dimensions)).astype(np.float32)
    unit_norm: Vectors = result / np.linalg.norm(result, axis=1, keepdims=True)
    return unit_norm


def brute_force(probes: Vectors, vectors: Vectors, k: int) -> tuple[Vectors, IntArray]:
    scores = probes @ vectors.T
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, rows, 1), rows


class TestFlat:
    @pytest.mark.parametrize("k", [1, 10, 50])
    def test_is_brute_force(self, k: int) -> None:
        scores, rows = VectorIndex(unit(50, 0)).search(unit(9, 1), k)
        expected, expected_rows = brute_force(unit(9, 1), unit(50, 0), k)
        np.testing.assert_allclose(scores, expected, atol=1e-6)
        np.testing.assert_array_equal(rows, expected_rows)

    def test_k_is_capped(self) -> None:
        scores, rows = VectorIndex(unit(50, 0)).search(unit(3, 1), 1000)
        assert scores.shape == rows.shape == (3, 50)
        assert (rows >= 0).all()

    def test_takes_other_layouts(self) -> None:
        vectors = np.asfortranarray(unit(50, 0))
        _, rows = VectorIndex(vectors).search(vectors, 1)
        np.testing.assert_array_equal(rows[:, 0], np.arange(50))

    def test_an_empty_index_finds_nothing(self) -> None:
        index = VectorIndex(unit(0, 0))
        scores, rows = index.search(unit(3, 1), 5)
        assert len(index) == 0 and index.vectors.shape == (0, 8)
        assert scores.shape == rows.shape == (3, 0)


class TestApproximate:
    @pytest.mark.parametrize("kind", ["ivf", "hnsw"])
    def test_recall_is_measured_and_suffices(self, kind: str) -> None:
        vectors, probes = unit(3000, 0, 32), unit(100, 1, 32)
        index = VectorIndex(vectors, kind)
        assert index.kind == kind and 0.95 <= index.recall <= 1
        np.testing.assert_array_equal(index.vectors, vectors)
        _, rows = index.search(probes, 10)
        expected = brute_force(probes, vectors, 10)[1]
        result = np.mean([np.isin(a, b).mean() for a, b in zip(expected, rows, strict=True)])
        assert abs(result - index.recall) < 0.1

    @pytest.mark.parametrize("kind", ["ivf", "hnsw"])
    def test_a_small_one_finds_everything(self, kind: str) -> None:
        index = VectorIndex(unit(5, 0), kind)
        assert index.recall == 1
        np.testing.assert_array_equal(
            index.search(unit(3, 1), 5)[1], brute_force(unit(3, 1), unit(5, 0), 5)[1]
        )

    @pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
    def test_bytes_and_back(self, kind: str) -> None:
        index = VectorIndex(unit(200, 0), kind)
        again = VectorIndex.from_bytes(index.to_bytes(), kind, index.recall)
        for left, right in zip(
            index.search(unit(9, 1), 7), again.search(unit(9, 1), 7), strict=True
        ):
            np.testing.assert_array_equal(left, right)

    def test_auto_is_flat_while_it_fits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert VectorIndex(unit(200, 0), "auto").kind == "flat"
        monkeypatch.setattr(vector_index, "MOST_FLAT_BYTES", 1000)
        assert VectorIndex(unit(200, 0), "auto").kind == "ivf"


class TestErrors:
    def test_what_is_refused(self) -> None:
        with pytest.raises(BadInputError, match=r"shape \(8,\)"):
            VectorIndex(unit(4, 0)[0])
        with pytest.raises(BadInputError, match="4 dimensions .* 8"):
            VectorIndex(unit(3, 0)).search(unit(3, 0, 4), 1)
        with pytest.raises(ConfigError, match="kind: 'tree'"):
            VectorIndex(unit(3, 0), "tree")

    @pytest.mark.parametrize("content", [b"", b"not an index", "half", "other kind"])
    def test_what_is_no_index(self, content: bytes | str) -> None:
        whole = VectorIndex(unit(50, 0), "hnsw" if content == "other kind" else "flat").to_bytes()
        broken = content if isinstance(content, bytes) else whole
        with pytest.raises(BadInputError, match="FAISS index"):
            VectorIndex.from_bytes(broken[:900] if content == "half" else broken, "flat", 1.0)

    def test_faiss_absent_or_emptied(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "faiss", None)
        with pytest.raises(MissingDependencyError, match=r"cldmray\[cpu\]"):
            load_faiss()
        monkeypatch.setitem(sys.modules, "faiss", ModuleType("faiss"))
        with pytest.raises(MissingDependencyError, match="pip uninstall"):
            load_faiss()


class FakeResources:
    def __init__(self) -> None:
        self.temporary = 0

    def setTempMemory(self, size: int) -> None:
        self.temporary = size


class FakeOptions:
    shard = False
    useFloat16 = True


class FakeFaiss:
    """FAISS as it is on a machine with GPUs; each is a flat index on the CPU.

    Attributes:
        copies: vectors on each GPU, for each index that was copied.
        full: whether the GPUs have no memory left.
    """

    def __init__(self, gpus: int) -> None:
        self.gpus = gpus
        self.real = load_faiss()
        self.copies: list[list[int]] = []
        self.resources: list[FakeResources] = []
        self.full = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def get_num_gpus(self) -> int:
        return self.gpus

    def StandardGpuResources(self) -> FakeResources:
        self.resources.append(FakeResources())
        return self.resources[-1]

    def GpuMultipleClonerOptions(self) -> FakeOptions:
        return FakeOptions()

    def index_cpu_to_gpu_multiple_py(
        self, resources: list[FakeResources], flat: Any, options: FakeOptions, gpus: list[int]
    ) -> Any:
        assert options.shard and not options.useFloat16
        assert gpus == list(range(len(resources)))
        assert type(flat) is self.real.IndexFlatIP
        self._allocate()
        shards = self.real.IndexShards(flat.d, False, True)
        parts = np.array_split(flat.reconstruct_n(0, flat.ntotal), len(gpus))
        for part in parts:
            shard = self.real.IndexFlatIP(flat.d)
            shard.add(part)
            shards.add_shard(shard)
        self.copies.append([len(part) for part in parts])
        return shards

    def _allocate(self) -> None:
        if self.full:
            raise RuntimeError("StandardGpuResources: alloc fail (out of memory)")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], FakeFaiss]:
    def machine(gpus: int) -> FakeFaiss:
        fake = FakeFaiss(gpus)
        monkeypatch.setattr(vector_index, "load_faiss", lambda: fake)
        return fake

    return machine


def answers(index: VectorIndex, k: int = 12) -> tuple[Vectors, IntArray]:
    return index.search(unit(9, 1), k)


def assert_same(result: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    for left, right in zip(result, expected, strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_allclose(left, right, atol=1e-4)


NAMES = np.array([f"p{number}" for number in np.random.default_rng(5).permutation(50)])


class TestStandIn:
    @pytest.mark.parametrize("gpus", [1, 2, 3])
    def test_finds_what_the_cpu_finds(self, machine: Callable[[int], FakeFaiss], gpus: int) -> None:
        expected = answers(VectorIndex(unit(50, 0)))
        fake = machine(gpus)
        index = VectorIndex(unit(50, 0))
        assert_same(answers(index), expected)
        assert_same(answers(index), expected)
        assert fake.copies == [{1: [50], 2: [25, 25], 3: [17, 17, 16]}[gpus]]
        assert [resource.temporary for resource in fake.resources] == [
            vector_index.TEMPORARY_BYTES
        ] * gpus

    def test_opened_and_merged_galleries_are_on_the_gpus_too(
        self, machine: Callable[[int], FakeFaiss], tmp_path: Path
    ) -> None:
        vectors, probes, uri = unit(50, 0), unit(9, 1), str(tmp_path / "gallery")
        expected = GalleryIndex.build(vectors, NAMES, NAMES).search(probes, 12)
        fake = machine(2)
        parts = [slice(0, 20), slice(20, 50)]
        shards = [GalleryIndex.build(vectors[part], NAMES[part], NAMES[part]) for part in parts]
        GalleryIndex.merge(shards).save(uri)
        assert not fake.copies
        matches = GalleryIndex.open(uri).search(probes, 12)
        np.testing.assert_array_equal(matches.identities, expected.identities)
        np.testing.assert_allclose(matches.scores, expected.scores, atol=1e-4)
        assert fake.copies == [[25, 25]]
        GalleryIndex.open(uri, gpus=1).search(probes, 3)
        assert fake.copies[1:] == [[50]]

    def test_fewer_vectors_than_gpus(self, machine: Callable[[int], FakeFaiss]) -> None:
        expected = answers(VectorIndex(unit(2, 0)))
        fake = machine(4)
        assert_same(answers(VectorIndex(unit(2, 0))), expected)
        assert fake.copies == [[1, 1]]

    def test_what_no_gpu_is_asked(self, machine: Callable[[int], FakeFaiss]) -> None:
        fake = machine(2)
        many = vector_index.MOST_NEIGHBOURS + 1
        index = VectorIndex(unit(many, 0))
        scores, _ = index.search(unit(2, 1), many)
        assert scores.shape == (2, many)
        assert index.search(unit(0, 1), 3)[0].shape == (0, 3)
        VectorIndex(unit(0, 0)).search(unit(2, 1), 3)
        VectorIndex(unit(50, 0), "hnsw").search(unit(2, 1), 3)
        assert not fake.copies
        assert_same(
            answers(VectorIndex(unit(50, 0), gpus=0)), answers(VectorIndex(unit(50, 0), gpus=2))
        )
        assert fake.copies == [[25, 25]]

    def test_full_gpus_leave_it_to_the_cpu(self, machine: Callable[[int], FakeFaiss]) -> None:
        expected = answers(VectorIndex(unit(50, 0)))
        fake = machine(2)
        fake.full = True
        index = VectorIndex(unit(50, 0))
        with pytest.warns(UserWarning, match=r"searched on the CPU: .*\(out of memory"):
            result = answers(index)
        fake.full = False
        assert_same(result, expected)
        assert_same(answers(index), expected)
        assert not fake.copies

    def test_without_gpus_none_of_their_functions_is_called(
        self, machine: Callable[[int], FakeFaiss]
    ) -> None:
        fake = machine(0)
        fake.full = True
        assert len(answers(VectorIndex(unit(50, 0), gpus=3))) == 2
        assert not fake.resources


@pytest.mark.skipif(not load_faiss().get_num_gpus(), reason="FAISS sees no GPU")
class TestRealGpus:
    @pytest.mark.parametrize("rows", [1, 5000])
    def test_find_what_the_cpu_finds(self, rows: int) -> None:
        vectors, probes = unit(rows, 0, 128), unit(300, 1, 128)
        on_gpus, on_cpu = (VectorIndex(vectors, gpus=gpus) for gpus in (None, 0))
        (scores, result), (expected, expected_rows) = (
            index.search(probes, 10) for index in (on_gpus, on_cpu)
        )
        np.testing.assert_allclose(scores, expected, atol=1e-4)
        assert (result == expected_rows).mean() > 0.999
        assert on_gpus._gpu_shards is not None
