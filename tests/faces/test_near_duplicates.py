"""Copies of an image are near-duplicates of it; other images of the same person are not."""

import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image

from cldmray.arrays import Images
from cldmray.faces.near_duplicates import (
    HASH_BYTES,
    MAX_DISTANCE,
    MIN_LIKENESS,
    SIDE,
    fingerprint,
    likeness,
    mirrored,
)
from cldmray.faces.records import decode_image
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.gallery.near_duplicates import near_duplicates


def rendered(n_identities: int, images_per_identity: int) -> Images:
    source = SyntheticFaces(n_identities, images_per_identity)
    places = [f"{i}/{j}" for i in range(n_identities) for j in range(images_per_identity)]
    return np.stack([decode_image(content) for content in source.read(places) if content])


@pytest.fixture(scope="module")
def faces() -> Images:
    """Two images each of 10 synthetic people."""
    return rendered(10, 2)


def recompressed(image: Images) -> Images:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=50)
    return np.asarray(Image.open(buffer))


def resized(image: Images) -> Images:
    small = cv2.resize(image, (80, 80), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (128, 128), interpolation=cv2.INTER_CUBIC))


def brighter(image: Images) -> Images:
    return np.clip(1.15 * image + 8, 0, 255).astype(np.uint8)


def darker(image: Images) -> Images:
    return (255 * (image / 255) ** 1.5).astype(np.uint8)


@pytest.mark.parametrize("change", [recompressed, resized, brighter, darker])
@pytest.mark.parametrize("in_a_mirror", [False, True])
def test_copies_are_near_duplicates(
    faces: Images, change: Callable[[Images], Images], in_a_mirror: bool
) -> None:
    copies = np.stack([change(image) for image in faces])
    copies = copies[:, :, ::-1] if in_a_mirror else copies
    pairs = near_duplicates(fingerprint(np.concatenate([faces, np.ascontiguousarray(copies)])))
    n = len(faces)
    assert [(pair.row, pair.other) for pair in pairs] == [(row, row + n) for row in range(n)]
    assert {pair.is_mirrored for pair in pairs} == {in_a_mirror}
    assert min(pair.likeness for pair in pairs) >= MIN_LIKENESS


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_pairs_are_the_same_however_the_images_are_shared_out(faces: Images, rows: int) -> None:
    copies = np.concatenate([faces, faces[:, :, ::-1], faces[3:5]])
    marks = fingerprint(np.ascontiguousarray(copies))
    whole = near_duplicates(marks)
    assert len(whole) == len(faces) + 2 + 2
    parts = [near_duplicates(marks, start, start + rows) for start in range(0, len(copies), rows)]
    assert [pair for part in parts for pair in part] == whole


def test_two_images_of_one_person_are_none(faces: Images) -> None:
    assert near_duplicates(fingerprint(faces)) == []


@pytest.mark.slow
def test_a_thousand_images_have_no_false_pair() -> None:
    assert near_duplicates(fingerprint(rendered(250, 4))) == []


def test_a_mirror_flips_the_signs_of_odd_frequencies(faces: Images) -> None:
    by_hand = fingerprint(np.ascontiguousarray(faces[:, :, ::-1])).hashes
    np.testing.assert_array_equal(mirrored(fingerprint(faces).hashes), by_hand)


def test_likeness_by_hand() -> None:
    board = np.indices((SIDE, SIDE)).sum(0) % 2 * np.uint8(100)
    pair = np.stack([board, board]).astype(np.uint8)
    assert likeness(pair, np.stack([200 - pair[0], pair[1] // 2])).round(6).tolist() == [-1.0, 1.0]
    flat = np.full((1, SIDE, SIDE), 7, np.uint8)
    assert likeness(flat, flat).tolist() == [1.0]
    assert likeness(flat, pair[:1]).tolist() == [0.0]


def test_nothing_and_images_without_content() -> None:
    nothing = fingerprint(np.zeros((0, 8, 8, 3), np.uint8))
    assert nothing.hashes.shape == (0, HASH_BYTES)
    assert near_duplicates(nothing) == []
    flat = np.full((3, 8, 8, 3), 7, np.uint8)
    flat[2] = np.random.default_rng(0).integers(0, 256, (8, 8, 3))
    (pair,) = near_duplicates(fingerprint(flat))
    assert (pair.row, pair.other, pair.is_mirrored) == (0, 1, False)


def test_pairs_as_a_plain_loop_finds_them(faces: Images) -> None:
    some = np.concatenate([faces[:6], np.stack([recompressed(image) for image in faces[2:5]])])
    marks = fingerprint(some)
    expected = [
        (row, other)
        for row in range(len(some))
        for other in range(row + 1, len(some))
        if np.bitwise_count(marks.hashes[row] ^ marks.hashes[other]).sum() <= MAX_DISTANCE
        and likeness(marks.thumbnails[[row]], marks.thumbnails[[other]])[0] >= MIN_LIKENESS
    ]
    assert [pair[:2] for pair in near_duplicates(marks)] == expected and expected
