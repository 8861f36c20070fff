"""Mirrored, shifted and scaled versions of training photographs."""

import numpy as np
import pytest

from cldmray.arrays import Pictures
from cldmray.faces.records import decode_pictures
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.models.variants import picture_variants


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    source = SyntheticFaces(people=12, photos_per_person=2, size=64)
    return decode_pictures(filter(None, source.read(source.listing()["location"].to_pylist())))


class TestPictureVariants:
    def test_the_first_is_the_picture_and_the_second_its_mirror(self, pictures: Pictures) -> None:
        found = picture_variants(pictures, 4, 0)
        assert found.shape == (4 * len(pictures), 64, 64, 3)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found[:24], pictures)
        np.testing.assert_array_equal(found[24:48], pictures[:, :, ::-1])

    def test_further_ones_are_moved_a_little(self, pictures: Pictures) -> None:
        found = picture_variants(pictures, 4, 0).astype(int)
        for start, base in ((48, 0), (72, 24)):
            for moved, still in zip(
                found[start : start + 24], found[base : base + 24], strict=True
            ):
                assert 0 < np.abs(moved - still).mean() < 40

    def test_they_depend_on_the_seed_only(self, pictures: Pictures) -> None:
        first = picture_variants(pictures, 3, 5)
        np.testing.assert_array_equal(first, picture_variants(pictures, 3, 5))
        assert (first != picture_variants(pictures, 3, 6)).any()
        np.testing.assert_array_equal(picture_variants(pictures, 1, 5), pictures)
