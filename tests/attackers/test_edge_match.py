from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cldmray import hashing
from cldmray.arrays import Pictures
from cldmray.attackers.condition_match import EdgeMatch
from cldmray.conditions import NoCondition, SoftEdge
from cldmray.conditions.base import Condition
from cldmray.faces.records import decode_pictures
from cldmray.faces.synthetic import SyntheticFaces


@dataclass(frozen=True)
class AsIs(Condition):
    """The pictures themselves are the maps."""

    name = "as is"

    def __call__(self, images: Pictures) -> Pictures:
        return images


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    source = SyntheticFaces(people=4, photos_per_person=1, size=64)
    return decode_pictures(source.read(source.listing()["location"].to_pylist()))


def test_inner_products_are_correlations_of_the_maps(pictures: Pictures) -> None:
    rung = EdgeMatch(sigma=0.0, side=64)
    found = rung.embed(pictures)
    maps = rung.condition(pictures)[..., 0].reshape(4, -1)
    np.testing.assert_allclose(found @ found.T, np.corrcoef(maps), atol=1e-5)
    assert found.dtype == np.float32
    assert found.shape == (4, rung.dimensions) == (4, 64 * 64)


@pytest.mark.parametrize("condition", [EdgeMatch().condition, SoftEdge()])
def test_maps_are_blurred_then_averaged_over_squares(
    condition: Condition, pictures: Pictures
) -> None:
    found = EdgeMatch(condition, sigma=2.0, side=16).embed(pictures)
    maps = condition(pictures)[..., 0].astype(float)
    smooth = np.stack([gaussian_filter(grey, 2.0, mode="mirror", truncate=4) for grey in maps])
    small = smooth.reshape(4, 16, 4, 16, 4).mean((2, 4))
    np.testing.assert_allclose(found @ found.T, np.corrcoef(small.reshape(4, -1)), atol=2e-3)


def test_by_hand() -> None:
    values = np.array([[[10, 20], [30, 40]], [[40, 30], [20, 10]], [[0, 0], [0, 255]]], np.uint8)
    pictures = np.repeat(values[..., None], 3, axis=3)
    found = EdgeMatch(AsIs(), sigma=0.0, side=2).embed(pictures)
    root = np.sqrt(500.0)
    np.testing.assert_allclose(found[0], np.array([-15, -5, 5, 15]) / root, atol=1e-6)
    # (-15, -5, 5, 15) . (-1, -1, -1, 3) / (sqrt(500) sqrt(12))
    assert found[0] @ found[2] == pytest.approx(60 / np.sqrt(6000), abs=1e-6)
    assert found[0] @ found[1] == pytest.approx(-1, abs=1e-6)


def test_a_moved_edge_still_matches_because_of_the_blur() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    cv2.circle(picture, (30, 30), 14, (255, 255, 255), -1)
    other = np.zeros_like(picture)
    cv2.rectangle(other, (8, 20), (50, 44), (255, 255, 255), -1)
    pictures = np.stack([picture, np.roll(picture, 1, axis=1), other])
    sharp, soft = (EdgeMatch(sigma=sigma, side=64).embed(pictures) for sigma in (0.0, 2.0))
    assert soft[0] @ soft[1] > 0.9 > sharp[0] @ sharp[1]
    assert soft[0] @ soft[1] > soft[0] @ soft[2] + 0.3


def test_maps_without_contrast_resemble_nobody() -> None:
    grey = np.full((2, 64, 64, 3), 77, np.uint8)
    for rung in (EdgeMatch(), EdgeMatch(AsIs()), EdgeMatch(NoCondition())):
        np.testing.assert_array_equal(rung.embed(grey), np.zeros((2, 1024)))
    assert EdgeMatch().embed(grey[:0]).shape == (0, 1024)


def test_what_it_is() -> None:
    rung = EdgeMatch()
    assert rung.name == "edge_match"
    assert not rung.per_anonymizer
    assert not rung.knows_clear_faces
    assert rung.probe_condition is None
    settings = [rung, EdgeMatch(sigma=1.0), EdgeMatch(side=16), EdgeMatch(SoftEdge())]
    assert len({hashing.fingerprint(hashing.describe(one)) for one in settings}) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"sigma": -1.0}, "^sigma: "), ({"sigma": float("nan")}, "^sigma: "), ({"side": 1}, "^side")],
)
def test_wrong_settings_are_named(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EdgeMatch(**settings)  # type: ignore[arg-type]
