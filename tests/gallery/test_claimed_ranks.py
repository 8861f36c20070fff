"""Ranks of named people against a loop that is plainly right, and against the usual protocol."""

import numpy as np
import pytest

from cldmray.errors import BadInputError
from cldmray.gallery import ranking
from cldmray.gallery.ranking import EmbeddingSet, rank_claimed, rank_probes
from cldmray.hashing import identity_hash


def embedded(
    gallery_identities: int = 7, seed: int = 0, spread: float = 0.6
) -> tuple[EmbeddingSet, EmbeddingSet]:
    """Probes and images of people with one to five images each."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(2, 6, gallery_identities)
    identities = np.repeat([f"p{number:02}" for number in range(gallery_identities)], counts)
    samples = np.array([f"s{number:03}" for number in rng.permutation(len(identities))])
    centres = np.repeat(rng.normal(size=(gallery_identities, 8)), counts, axis=0)
    vectors = []
    for _ in range(2):
        noisy = centres + spread * rng.normal(size=centres.shape)
        noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
        vectors.append(noisy.astype(np.float32))
    return EmbeddingSet(samples, identities, vectors[0]), EmbeddingSet(
        samples, identities, vectors[1]
    )


def by_loop(
    probes: EmbeddingSet, images: EmbeddingSet, left_out: list[tuple[str, ...]]
) -> list[int]:
    result = []
    for sample, (named, vector) in enumerate(zip(probes.identities, probes.vectors, strict=True)):
        best: dict[str, float] = {}
        for image, identity, other in zip(
            images.sample_ids, images.identities, images.vectors, strict=True
        ):
            if image not in left_out[sample]:
                best[identity] = max(best.get(identity, -9.0), float(vector @ other))
        result.append(sum(score > best[named] + 1e-6 for score in best.values()))
    return result


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cells", [10, 10**6])
def test_equals_the_loop(seed: int, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "CELLS", cells)
    probes, images = embedded(seed=seed)
    rng = np.random.default_rng(seed)
    named = EmbeddingSet(probes.sample_ids, rng.permutation(probes.identities), probes.vectors)
    others = rng.permutation(images.sample_ids)
    left_out = list(zip(probes.sample_ids.tolist(), others.tolist(), strict=True))
    ranks = rank_claimed(named, images, left_out)
    assert ranks.n_higher.tolist() == by_loop(named, images, left_out)
    assert not ranks.n_tied.any()
    assert ranks.sample_ids.tolist() == probes.sample_ids.tolist()
    assert ranks.gallery_size == 7
    nothing: list[tuple[str, ...]] = [()] * len(probes.sample_ids)
    assert rank_claimed(named, images).n_higher.tolist() == by_loop(named, images, nothing)


def test_equals_full_ref_for_the_source_s_own_person() -> None:
    probes, images = embedded(gallery_identities=12, seed=5)
    left_out = [(sample,) for sample in probes.sample_ids.tolist()]
    for gallery, out in (("source_excluded", left_out), ("source_included", None)):
        ours = rank_claimed(probes, images, out)
        theirs = rank_probes(probes, images, "full_ref", gallery)  # type: ignore[arg-type]
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(mine, other)


def test_ties_and_people_without_an_image_left() -> None:
    axes = np.eye(3, dtype=np.float32)
    images = EmbeddingSet(
        np.array(["a1", "b1", "c1", "c2"]), np.array(["a", "b", "c", "c"]), axes[[0, 0, 1, 2]]
    )
    probes = EmbeddingSet(np.array(["x", "y", "z"]), np.array(["a", "b", "c"]), axes[[0, 0, 2]])
    ranks = rank_claimed(probes, images, [(), ("b1",), ("c2", "a1")])
    assert ranks.sample_ids.tolist() == ["x", "z"], "b has no other image"
    assert (ranks.n_higher.tolist(), ranks.n_tied.tolist()) == ([0, 0], [1, 1])


def test_what_cannot_be_ranked() -> None:
    probes, images = embedded()
    stranger = EmbeddingSet(probes.sample_ids[:1], np.array(["zoe"]), probes.vectors[:1])
    with pytest.raises(BadInputError, match=f"person {identity_hash('zoe')} is not in the gallery"):
        rank_claimed(stranger, images)
    with pytest.raises(BadInputError, match="'nosuch' is not in the gallery"):
        rank_claimed(probes, images, [("nosuch",)] * len(probes.sample_ids))
    with pytest.raises(BadInputError, match="fewer than two people"):
        rank_claimed(probes, EmbeddingSet(*(part[:1] for part in (
            images.sample_ids, images.identities, images.vectors))))  # fmt: skip
    own = [tuple(images.sample_ids[images.identities == name]) for name in probes.identities]
    with pytest.raises(BadInputError, match="no probe's person"):
        rank_claimed(probes, images, own)
