"""Arrays that are computed once, piece by piece, and opened from their files afterwards."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cldmray.models.packing import CHUNK, content_hash, mapped, packed


def pieces(done: int) -> Iterator[np.ndarray]:
    for start in range(done, 6, 2):
        yield np.arange(start, start + 2)[:, None] * [1, 10]


WHOLE = np.array([[0, 0], [1, 10], [2, 20], [3, 30], [4, 40], [5, 50]])


def never(done: int) -> Iterator[np.ndarray]:
    raise AssertionError("computed again")


def test_it_is_computed_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "numbers.npy"
    np.testing.assert_array_equal(packed(path, (6, 2), np.int64, pieces), WHOLE)
    again = packed(path, (6, 2), np.int64, never)
    np.testing.assert_array_equal(again, WHOLE)
    assert [file.name for file in path.parent.iterdir()] == ["numbers.npy"]
    with pytest.raises(ValueError, match="read-only"):
        again[0, 0] = 1


def test_what_was_cut_short_goes_on_after_its_last_piece(tmp_path: Path) -> None:
    path = tmp_path / "numbers.npy"
    started: list[int] = []

    def cut(done: int) -> Iterator[np.ndarray]:
        started.append(done)
        yield next(pieces(done))
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            packed(path, (6, 2), np.int64, cut)
    assert started == [0, 2]
    assert not path.exists()
    np.testing.assert_array_equal(packed(path, (6, 2), np.int64, pieces), WHOLE)


def test_a_function_of_images_is_mapped_over_them_in_pieces(tmp_path: Path) -> None:
    images = np.arange(2 * CHUNK + 3)
    sizes: list[int] = []

    def double(chunk: np.ndarray) -> np.ndarray:
        sizes.append(len(chunk))
        return 2 * chunk

    result = packed(tmp_path / "double.npy", images.shape, np.int64, mapped(images, double))
    np.testing.assert_array_equal(result, 2 * images)
    assert sizes == [CHUNK, CHUNK, 3]
    assert [len(part) for part in mapped(images, double)(2 * CHUNK)] == [3]


def test_the_content_hash_is_that_of_the_bytes() -> None:
    array = np.arange(5 * (CHUNK + 7), dtype=np.float32).reshape(-1, 5)
    assert content_hash(array) == hashlib.sha256(array.tobytes()).hexdigest()
    assert content_hash(array[:, ::-1]) == hashlib.sha256(array[:, ::-1].tobytes()).hexdigest()
