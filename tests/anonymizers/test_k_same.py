import time
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest

from cldmray.anonymizers.k_same import KSame
from cldmray.errors import BadInputError
from cldmray.hashing import identity_hash, sample_id


def samples(
    counts: list[int], seed: int = 0
) -> tuple[list[str], list[str], npt.NDArray[np.float32]]:
    """Ids, people and whole-number features of people with the given numbers of images."""
    identities = [
        f"person {identity}" for identity, count in enumerate(counts) for _ in range(count)
    ]
    ids = [sample_id("test", str(position)) for position in range(len(identities))]
    features = np.random.default_rng(seed).integers(0, 256, (len(identities), 9))
    return ids, identities, features.astype(np.float32)


def assert_promise(groups: npt.NDArray[np.int64], identities: list[str], k: int) -> None:
    sizes = Counter(groups.tolist())
    assert sorted(sizes) == list(range(len(identities) // k))
    assert min(sizes.values()) >= k
    anonymizers = Counter(zip(groups.tolist(), identities, strict=True))
    assert max(anonymizers.values()) == 1


def random_counts(random: np.random.Generator, k: int, shape: int) -> list[int]:
    """Image counts that are just or comfortably feasible, even or skewed."""
    n_identities = k + int(random.integers(0, 12))
    if shape == 0:
        counts = random.integers(1, 6, n_identities)
    elif shape == 1:
        counts = np.minimum(1 + (10 * random.pareto(1.0, n_identities)).astype(int), 40)
    else:
        many = np.full(int(random.integers(1, k + 1)), random.integers(2, 8))
        counts = np.concatenate([many, random.integers(1, 3, n_identities)])
    return [int(count) for count in counts]


def test_every_feasible_input_keeps_the_promise() -> None:
    random = np.random.default_rng(7)
    feasible = 0
    for trial in range(600):
        k = int(random.integers(2, 8))
        counts = random_counts(random, k, trial % 3)
        while trial % 2 and max(counts) > sum(counts) // k:
            counts = [min(count, sum(counts) // k) for count in counts]
        ids, identities, features = samples(counts, seed=trial)
        if max(counts) > sum(counts) // k:
            with pytest.raises(BadInputError):
                KSame(k=k).plan(ids, identities, features)
            continue
        feasible += 1
        assert_promise(KSame(k=k).plan(ids, identities, features), identities, k)
    assert feasible > 300


@pytest.mark.parametrize(
    ("counts", "k"),
    [
        ([1] * 5, 5),
        ([1] * 9, 5),
        ([2] * 5, 5),
        ([3, 3, 3], 3),
        ([4, 1, 1, 1, 1], 2),
        ([3, 3, 3, 3, 2], 4),
        ([5, 5, 1, 1, 1, 1, 1], 3),
        ([2, 2, 2, 2, 2, 1], 5),
        ([10] * 3 + [1] * 10, 4),
    ],
)
def test_tight_inputs_keep_the_promise(counts: list[int], k: int) -> None:
    for seed in range(10):
        ids, identities, features = samples(counts, seed)
        assert_promise(KSame(k=k).plan(ids, identities, features), identities, k)


def test_the_order_of_the_samples_changes_nothing() -> None:
    ids, identities, features = samples([4, 1, 2, 3, 3, 2, 1, 1, 2, 5, 2, 1])
    features[5:15] = features[5]
    expected = dict(zip(ids, KSame(k=4).plan(ids, identities, features).tolist(), strict=True))
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(ids))
        mixed = [ids[i] for i in order]
        groups = KSame(k=4).plan(mixed, [identities[i] for i in order], features[order])
        assert dict(zip(mixed, groups.tolist(), strict=True)) == expected


def test_alike_faces_share_a_group() -> None:
    ids = [f"{position}" for position in range(6)]
    identities = ["a", "b", "c", "d", "e", "f"]
    features = np.array([[0], [100], [1], [101], [2], [102]], np.float32)
    assert KSame(k=3).plan(ids, identities, features).tolist() == [0, 1, 0, 1, 0, 1]


def test_a_leftover_joins_the_nearest_group() -> None:
    features = np.array([[0], [1], [100], [101], [99]], np.float32)
    assert KSame(k=2).plan(list("01234"), list("abcde"), features).tolist() == [0, 0, 1, 1, 1]


def test_a_leftover_avoids_the_group_of_its_person() -> None:
    features = np.array([[0], [1], [50], [51], [0]], np.float32)
    assert KSame(k=2).plan(list("01234"), list("abcda"), features).tolist() == [0, 0, 1, 1, 1]


def test_too_many_images_of_one_person_are_named() -> None:
    ids, identities, features = samples([4, 1, 1, 1, 1, 1])
    hashed = identity_hash("person 0")
    with pytest.raises(
        BadInputError, match=rf"k_same: identity {hashed} has 4 images.*3 groups of k=3"
    ):
        KSame(k=3).plan(ids, identities, features)


def test_too_few_people_are_counted() -> None:
    ids, identities, features = samples([2, 2])
    with pytest.raises(BadInputError, match="k=3 needs as many people, not 2"):
        KSame(k=3).plan(ids, identities, features)
    with pytest.raises(BadInputError, match="not 0"):
        KSame(k=3).plan([], [], features[:0])


def test_a_sample_given_twice_is_named() -> None:
    with pytest.raises(BadInputError, match="sample x is there more than once"):
        KSame(k=2).plan(["x", "y", "x"], ["a", "b", "c"], np.zeros((3, 1), np.float32))


def test_the_surrogate_is_the_exact_mean_rounded_half_up() -> None:
    images = np.zeros((2, 1, 3, 3), np.uint8)
    images[0, 0] = [[0, 1, 255], [10, 254, 3], [7, 0, 0]]
    images[1, 0] = [[0, 2, 255], [11, 255, 4], [7, 1, 2]]
    expected = [[[0, 2, 255], [11, 255, 4], [7, 1, 1]]]
    assert KSame(k=2).merge(images).tolist() == expected
    many = np.random.default_rng(0).integers(0, 256, (13, 5, 5, 3), dtype=np.uint8)
    exact = np.floor(many.astype(object).sum(axis=0) / 13 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(KSame(k=10).merge(many), exact)


def test_a_group_below_k_is_never_merged() -> None:
    with pytest.raises(ValueError, match="^images of a group must be at least k=3, not 2"):
        KSame(k=3).merge(np.zeros((2, 4, 4, 3), np.uint8))


def test_features_are_grey_thumbnails_in_whole_levels() -> None:
    images = np.zeros((2, 32, 32, 3), np.uint8)
    images[0, :16] = 200
    images.setflags(write=False)
    features = KSame(thumbnail=2).features(images)
    assert features.dtype == np.float32
    assert features.tolist() == [[200, 200, 0, 0], [0, 0, 0, 0]]
    assert KSame().features(images).shape == (2, 256)
    assert KSame().features(images[:0]).shape == (0, 256)


def test_extreme_features_have_exact_distances() -> None:
    white, black = np.full(256, 255, np.float32), np.zeros(256, np.float32)
    almost = white.copy()
    almost[0] = 254
    features = np.stack([black, white, almost, black])
    groups = KSame(k=2).plan(list("abcd"), list("abcd"), features).tolist()
    assert groups == [0, 1, 1, 0]


def test_many_images_are_planned_in_seconds() -> None:
    random = np.random.default_rng(0)
    counts = (1 + random.geometric(0.25, 1000)).tolist()
    ids, identities, _ = samples(counts)
    features = random.integers(0, 256, (len(ids), 256)).astype(np.float32)
    start = time.perf_counter()
    groups = KSame(k=10).plan(ids, identities, features)
    assert time.perf_counter() - start < 20
    assert_promise(groups, identities, 10)
