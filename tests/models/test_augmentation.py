"""Mirrored, shifted and scaled versions of training images."""

import numpy as np
import pytest

from cldmray.arrays import Images
from cldmray.faces.records import decode_images
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.models.augmentation import augmented_copies


@pytest.fixture(scope="module")
def images() -> Images:
    source = SyntheticFaces(n_identities=12, images_per_identity=2, size=64)
    return decode_images(filter(None, source.read(source.listing()["location"].to_pylist())))


class TestAugmentedCopies:
    def test_the_first_is_the_image_and_the_second_its_mirror(self, images: Images) -> None:
        copies = augmented_copies(images, 4, 0)
        assert copies.shape == (4 * len(images), 64, 64, 3)
        assert copies.dtype == np.uint8
        np.testing.assert_array_equal(copies[:24], images)
        np.testing.assert_array_equal(copies[24:48], images[:, :, ::-1])

    def test_further_ones_are_moved_a_little(self, images: Images) -> None:
        copies = augmented_copies(images, 4, 0).astype(int)
        for start, base in ((48, 0), (72, 24)):
            for moved, still in zip(
                copies[start : start + 24], copies[base : base + 24], strict=True
            ):
                assert 0 < np.abs(moved - still).mean() < 40

    def test_they_depend_on_the_seed_only(self, images: Images) -> None:
        first = augmented_copies(images, 3, 5)
        np.testing.assert_array_equal(first, augmented_copies(images, 3, 5))
        assert (first != augmented_copies(images, 3, 6)).any()
        np.testing.assert_array_equal(augmented_copies(images, 1, 5), images)
