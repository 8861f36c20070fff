"""What a training without Ray reads, and what enters it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cldmray.arrays import Images
from cldmray.errors import BadInputError
from cldmray.faces.base import FaceSource, Sample, listing_table
from cldmray.faces.records import AUXILIARY, decode_images, encode_image
from cldmray.faces.splits import SplitConfig, split_listing
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.models.training_images import augmented_copies, pack_copies, read_here, split_rows
from cldmray.settings import checked_dataclass


def owner(location: str) -> str:
    """Identity of an image: ten have two images, twenty have one."""
    return f"p{int(location) // 2 if int(location) < 20 else int(location)}"


@checked_dataclass
class Colors(FaceSource):
    """Images of one colour, of which some files are bad."""

    name: str = "colors"
    size: int = 16
    crop: list[int] | None = None
    bad: tuple[str, ...] = ()

    def listing(self) -> pa.Table:
        return listing_table(
            self.name,
            (Sample(owner(str(i)), f"{owner(str(i))}/{i}", str(i), "1") for i in range(40)),
        )

    def read(self, locations: Sequence[str]) -> list[bytes | None]:
        return [
            b"" if location in self.bad else encode_image(self.color(location))
            for location in locations
        ]

    def color(self, location: str) -> Images:
        return np.full((16, 16, 3), 5 * int(location) + 1, np.uint8)


@pytest.fixture(scope="module")
def images() -> Images:
    source = SyntheticFaces(n_identities=12, images_per_identity=2, size=64)
    return decode_images(filter(None, source.read(source.listing()["location"].to_pylist())))


class TestAugmentedCopies:
    def test_the_first_is_the_image_and_the_second_its_mirror(self, images: Images) -> None:
        copies = np.concatenate([*augmented_copies(images, 4, 0)])
        assert copies.shape == (4 * len(images), 64, 64, 3)
        assert copies.dtype == np.uint8
        np.testing.assert_array_equal(copies[:24], images)
        np.testing.assert_array_equal(copies[24:48], images[:, :, ::-1])

    def test_further_ones_are_moved_a_little(self, images: Images) -> None:
        copies = np.concatenate([*augmented_copies(images, 4, 0)]).astype(int)
        for start, base in ((48, 0), (72, 24)):
            for moved, still in zip(
                copies[start : start + 24], copies[base : base + 24], strict=True
            ):
                assert 0 < np.abs(moved - still).mean() < 40

    def test_they_depend_on_the_seed_only(self, images: Images) -> None:
        first = np.concatenate([*augmented_copies(images, 3, 5)])
        np.testing.assert_array_equal(first, np.concatenate([*augmented_copies(images, 3, 5)]))
        assert (first != np.concatenate([*augmented_copies(images, 3, 6)])).any()
        (only,) = augmented_copies(images, 1, 5)
        np.testing.assert_array_equal(only, images)


def test_images_are_read_into_a_file(tmp_path: Path) -> None:
    source = Colors()
    listing = source.listing()
    images, identities = read_here(source, listing, tmp_path)
    assert identities == listing["identity"].to_pylist()
    for image, location in zip(images, listing["location"].to_pylist(), strict=True):
        np.testing.assert_array_equal(image, source.color(location))
    (file,) = tmp_path.iterdir()
    read_here(source, listing, tmp_path)
    assert list(tmp_path.iterdir()) == [file]


def test_bad_files_are_left_out(tmp_path: Path) -> None:
    source = Colors(bad=("3", "39"))
    images, identities = read_here(source, source.listing(), tmp_path)
    assert images.shape == (38, 16, 16, 3) and len(identities) == 38
    colors = [(int(image[0, 0, 0]) - 1) // 5 for image in images]
    assert not {3, 39} & set(colors)
    assert [owner(str(color)) for color in colors] == identities
    none = Colors(bad=tuple(map(str, range(40))))
    with pytest.raises(BadInputError, match="^colors: none of 40 files is a usable image"):
        read_here(none, none.listing(), tmp_path / "none")


def test_one_split_of_a_source() -> None:
    source = Colors()
    splits = SplitConfig(n_evaluation_identities=5, min_images=2)
    rows = split_rows(source, splits, AUXILIARY)
    assigned = split_listing(source.listing(), splits)
    auxiliary = {identity for identity, split in assigned.items() if split == AUXILIARY}
    assert set(rows["identity"].to_pylist()) == auxiliary
    assert rows.schema == source.listing().schema
    with pytest.raises(BadInputError, match="^colors: there are no tomorrow people"):
        split_rows(source, splits, "tomorrow")


def test_sources_and_their_copies_stand_one_after_the_other(tmp_path: Path) -> None:
    first, second = (
        np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)
        for seed, count in ((0, 3), (1, 2))
    )
    packed = pack_copies([first, second], 2, 0, tmp_path)
    expected = [first, first[:, :, ::-1], second, second[:, :, ::-1]]
    np.testing.assert_array_equal(packed, np.concatenate(expected))
    assert len(pack_copies([first, second], 3, 0, tmp_path)) == 15
    assert len(list(tmp_path.iterdir())) == 2
