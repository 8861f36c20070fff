"""Galleries on GPUs: by a stand-in for FAISS's GPU functions, and on real ones where there are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cldmray.gallery import gpu_search, index
from cldmray.gallery.index import Codes, Floats, GalleryIndex, load_faiss
from cldmray.gallery.protocols import EmbeddingSet
from cldmray.gallery.ranking import rank_probes


def unit(rows: int, seed: int, dimensions: int = 8) -> Floats:
    found = np.random.default_rng(seed).normal(size=(rows, dimensions)).astype(np.float32)
    unit_norm: Floats = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit_norm


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
        products: GPU and vectors of each matrix product.
        full: whether the GPUs have no memory left.
    """

    def __init__(self, gpus: int) -> None:
        self.gpus = gpus
        self.real = load_faiss()
        self.copies: list[list[int]] = []
        self.products: list[tuple[int, int]] = []
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

    def pairwise_distance_gpu(
        self, resource: FakeResources, probes: Floats, vectors: Floats, metric: int, device: int
    ) -> Floats:
        assert resource is self.resources[device]
        self._allocate()
        self.products.append((device, len(vectors)))
        found: Floats = self.real.pairwise_distances(probes, vectors, metric)
        return found

    def _allocate(self) -> None:
        if self.full:
            raise RuntimeError("StandardGpuResources: alloc fail (out of memory)")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], FakeFaiss]:
    def machine(gpus: int) -> FakeFaiss:
        fake = FakeFaiss(gpus)
        monkeypatch.setattr(index, "load_faiss", lambda: fake)
        return fake

    return machine


def answers(gallery: GalleryIndex, k: int = 12) -> tuple[Floats, Codes, Floats]:
    return *gallery.search(unit(9, 1), k), gallery.inner_products(unit(9, 1))


def assert_same(found: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, atol=1e-4)


LABELS = np.random.default_rng(5).permutation(50) * 7


class TestStandIn:
    @pytest.mark.parametrize("gpus", [1, 2, 3])
    def test_finds_what_the_cpu_finds(self, machine: Callable[[int], FakeFaiss], gpus: int) -> None:
        expected = answers(GalleryIndex(unit(50, 0), LABELS))
        fake = machine(gpus)
        gallery = GalleryIndex(unit(50, 0), LABELS)
        assert_same(answers(gallery), expected)
        assert_same(answers(gallery), expected)
        shares = {1: [50], 2: [25, 25], 3: [17, 17, 16]}[gpus]
        assert fake.copies == [shares]
        assert sorted(fake.products) == sorted(2 * list(enumerate(shares)))
        assert [one.temporary for one in fake.resources] == [gpu_search.TEMPORARY_BYTES] * gpus

    def test_opened_and_merged_galleries_are_on_the_gpus_too(
        self, machine: Callable[[int], FakeFaiss], tmp_path: Path
    ) -> None:
        expected = answers(GalleryIndex(unit(50, 0), LABELS))
        fake = machine(2)
        parts = [slice(0, 20), slice(20, 50)]
        shards = [GalleryIndex(unit(50, 0)[part], LABELS[part]) for part in parts]
        GalleryIndex.merge(shards).save(str(tmp_path / "gallery"))
        assert not fake.copies
        assert_same(answers(GalleryIndex.open(str(tmp_path / "gallery"))), expected)
        assert fake.copies == [[25, 25]]
        GalleryIndex.open(str(tmp_path / "gallery"), gpus=1).search(unit(9, 1), 3)
        assert fake.copies[1:] == [[50]]

    def test_fewer_vectors_than_gpus(self, machine: Callable[[int], FakeFaiss]) -> None:
        expected = answers(GalleryIndex(unit(2, 0), LABELS[:2]))
        fake = machine(4)
        assert_same(answers(GalleryIndex(unit(2, 0), LABELS[:2])), expected)
        assert fake.copies == [[1, 1]]
        assert sorted(fake.products) == [(0, 1), (1, 1)]

    def test_ranks_are_those_of_the_cpu(self, machine: Callable[[int], FakeFaiss]) -> None:
        ids = np.array([f"{number}" for number in range(60)])
        gallery_identities = np.array([f"person {number // 3}" for number in range(60)])
        known, probes = (EmbeddingSet(ids, gallery_identities, unit(60, seed)) for seed in (0, 1))
        expected = rank_probes(probes, known, "full_ref", "source_excluded")
        fake = machine(2)
        found = rank_probes(probes, known, "full_ref", "source_excluded")
        assert sum(rows for _, rows in fake.products) == 60
        np.testing.assert_array_equal(found.n_higher, expected.n_higher)
        np.testing.assert_array_equal(found.n_tied, expected.n_tied)

    def test_what_no_gpu_is_asked(self, machine: Callable[[int], FakeFaiss]) -> None:
        fake = machine(2)
        many = gpu_search.MOST_NEIGHBOURS + 1
        gallery = GalleryIndex(unit(many, 0), np.arange(many))
        scores, _ = gallery.search(unit(2, 1), many)
        assert scores.shape == (2, many)
        assert gallery.search(unit(0, 1), 3)[0].shape == (0, 3)
        assert gallery.inner_products(unit(0, 1)).shape == (0, many)
        GalleryIndex(unit(0, 0), np.zeros(0, np.int64)).search(unit(2, 1), 3)
        assert_same(
            answers(GalleryIndex(unit(50, 0), LABELS, gpus=0)),
            answers(GalleryIndex(unit(50, 0), LABELS, gpus=2)),
        )
        assert fake.copies == [[25, 25]]
        assert len(fake.products) == 2

    def test_full_gpus_leave_it_to_the_cpu(self, machine: Callable[[int], FakeFaiss]) -> None:
        expected = answers(GalleryIndex(unit(50, 0), LABELS))
        fake = machine(2)
        fake.full = True
        gallery = GalleryIndex(unit(50, 0), LABELS)
        with pytest.warns(UserWarning, match=r"searched on the CPU: .*\(out of memory"):
            scores, labels = gallery.search(unit(9, 1), 12)
        fake.full = False
        assert_same((scores, labels, gallery.inner_products(unit(9, 1))), expected)
        assert not fake.copies and not fake.products

    def test_without_gpus_none_of_their_functions_is_called(
        self, machine: Callable[[int], FakeFaiss]
    ) -> None:
        fake = machine(0)
        fake.full = True
        assert len(answers(GalleryIndex(unit(50, 0), LABELS, gpus=3))) == 3
        assert not fake.resources


@pytest.mark.skipif(not load_faiss().get_num_gpus(), reason="FAISS sees no GPU")
class TestRealGpus:
    @pytest.mark.parametrize("rows", [1, 5000])
    def test_find_what_the_cpu_finds(self, rows: int) -> None:
        vectors, probes = unit(rows, 0, 128), unit(300, 1, 128)
        own, cpu = (GalleryIndex(vectors, np.arange(rows) * 3, gpus) for gpus in (None, 0))
        np.testing.assert_allclose(
            own.inner_products(probes), cpu.inner_products(probes), atol=1e-4
        )
        (scores, labels), (expected, expected_labels) = (
            gallery.search(probes, 10) for gallery in (own, cpu)
        )
        np.testing.assert_allclose(scores, expected, atol=1e-4)
        assert (labels == expected_labels).mean() > 0.999
        assert own._gallery is not None
