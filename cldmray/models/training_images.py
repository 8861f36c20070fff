"""The images that the CLDM learns from: auxiliary people and rendered ones, and their copies."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cldmray.arrays import Images
from cldmray.errors import BadInputError
from cldmray.faces.base import FaceSource, ReadFace
from cldmray.faces.decode import InvalidImageError
from cldmray.faces.splits import SplitConfig, split_listing
from cldmray.hashing import canonicalize, fingerprint
from cldmray.models.packing import content_hash, packed

ROWS = 32
"""Images that are read and packed at once; a rendered one takes a tenth of a second."""
LARGEST_SHIFT = 2.5 / 64
"""Of a moved copy, as a share of the width."""


def split_rows(source: FaceSource, splits: SplitConfig, split: str) -> pa.Table:
    """Listing of one split of a source.

    Raises:
        BadInputError: the split is empty.
    """
    listing = source.listing()
    assigned = split_listing(listing, splits)
    column = [assigned.get(identity, "") for identity in listing["identity"].to_pylist()]
    rows = listing.filter(pc.equal(pa.array(column, pa.string()), split))
    if not rows.num_rows:
        raise BadInputError(f"{source.name}: there are no {split} people")
    return rows


def read_here(source: FaceSource, listing: pa.Table, folder: Path) -> tuple[Images, list[str]]:
    """The listed images, read in this process into a file; bad ones are left out.

    Args:
        listing: schema ``records.LISTING``.
        folder: gets the file; a reading that was cut short goes on.

    Returns:
        Images (N, size, size, 3) and their identities, in the order of the listing.

    Raises:
        BadInputError: none of the files is a usable image.
    """
    locations = listing["location"].to_pylist()
    decisive = [listing[name].to_pylist() for name in ("sample_id", "version")]
    search = [canonicalize(source)] if source.finds_faces else []
    key = fingerprint([*decisive, source.crop, source.size, *search])

    def read(done: int) -> Iterator[Images]:
        read_face = source.open()
        for start in range(done, len(locations), ROWS):
            contents = source.read(locations[start : start + ROWS])
            yield np.stack(
                [_face_or_black(read_face, content, source.size) for content in contents]
            )

    shape = (len(locations), source.size, source.size, 3)
    images = packed(folder / f"{source.name}-{key}.npy", shape, np.uint8, read)
    usable = np.array([image.any() for image in images])
    if not usable.any():
        raise BadInputError(f"{source.name}: none of {len(images)} files is a usable image")
    identities = listing["identity"].filter(pa.array(usable)).to_pylist()
    return (images if usable.all() else images[usable]), identities


def augmented_copies(images: Images, copies_per_image: int, seed: int) -> Iterator[Images]:
    """The images, then mirrored, then turned, scaled and shifted.

    Args:
        images: uint8 (N, h, w, 3).
        copies_per_image: at least 1.
        seed: of the turns, scales and shifts.

    Yields:
        ``copies_per_image`` arrays, uint8 (N, h, w, 3).
    """
    mirrored = images[:, :, ::-1]
    yield from (images, mirrored)[:copies_per_image]
    random = np.random.default_rng(seed)
    centre = ((images.shape[2] - 1) / 2, (images.shape[1] - 1) / 2)
    most = LARGEST_SHIFT * images.shape[2]
    for extra in range(2, copies_per_image):
        moved = np.empty_like(images)
        for i in range(len(images)):
            matrix = cv2.getRotationMatrix2D(
                centre, random.uniform(-6, 6), random.uniform(0.97, 1.12)
            )
            matrix[:, 2] = matrix[:, 2] + random.uniform(-most, most, 2)
            source = images[i] if extra % 2 == 0 else mirrored[i]
            moved[i] = cv2.warpAffine(
                np.ascontiguousarray(source), matrix, images.shape[2:0:-1],
                flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101,
            )  # fmt: skip
        yield moved


def pack_copies(
    sources: Sequence[Images], copies_per_image: int, seed: int, folder: Path
) -> Images:
    """All images of all sources with their augmented copies, in one file.

    Args:
        sources: uint8 (N, size, size, 3) each.
        copies_per_image: see :func:`augmented_copies`.

    Returns:
        uint8 (copies_per_image * sum of N, size, size, 3), a memory map.
    """
    key = fingerprint([[content_hash(images) for images in sources], copies_per_image, seed])

    def copies(done: int) -> Iterator[Images]:
        for images in sources:
            for version in augmented_copies(images, copies_per_image, seed):
                done -= len(version)
                if done < 0:
                    yield version

    rows = copies_per_image * sum(map(len, sources))
    return packed(folder / f"images-{key}.npy", (rows, *sources[0].shape[1:]), np.uint8, copies)


def _face_or_black(read_face: ReadFace, content: bytes | None, size: int) -> Images:
    """An image of a face, or one that is black all over where there is none in the file."""
    try:
        return read_face(content).image
    except InvalidImageError:
        return np.zeros((size, size, 3), np.uint8)
