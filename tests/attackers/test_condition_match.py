from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cldmray import hashing
from cldmray.arrays import Images
from cldmray.attackers.condition_match import ConditionMatch
from cldmray.conditions import NoCondition, SoftEdge
from cldmray.conditions.base import Condition
from cldmray.faces.records import decode_images
from cldmray.faces.synthetic import SyntheticFaces


@dataclass(frozen=True)
class AsIs(Condition):
    """The images themselves are the maps."""

    name = "as is"

    def __call__(self, images: Images) -> Images:
        return images


@pytest.fixture(scope="module")
def images() -> Images:
    source = SyntheticFaces(n_identities=4, images_per_identity=1, size=64)
    return decode_images(source.read(source.listing()["location"].to_pylist()))


def test_inner_products_are_correlations_of_the_maps(images: Images) -> None:
    attacker = ConditionMatch(sigma=0.0, side=64)
    result = attacker.embed(images)
    maps = attacker.condition(images)[..., 0].reshape(4, -1)
    np.testing.assert_allclose(result @ result.T, np.corrcoef(maps), atol=1e-5)
    assert result.dtype == np.float32
    assert result.shape == (4, attacker.dimensions) == (4, 64 * 64)


@pytest.mark.parametrize("condition", [ConditionMatch().condition, SoftEdge()])
def test_maps_are_blurred_then_averaged_over_squares(condition: Condition, images: Images) -> None:
    result = ConditionMatch(condition, sigma=2.0, side=16).embed(images)
    maps = condition(images)[..., 0].astype(float)
    smooth = np.stack([gaussian_filter(grey, 2.0, mode="mirror", truncate=4) for grey in maps])
    small = smooth.reshape(4, 16, 4, 16, 4).mean((2, 4))
    np.testing.assert_allclose(result @ result.T, np.corrcoef(small.reshape(4, -1)), atol=2e-3)


def test_by_hand() -> None:
    values = np.array([[[10, 20], [30, 40]], [[40, 30], [20, 10]], [[0, 0], [0, 255]]], np.uint8)
    images = np.repeat(values[..., None], 3, axis=3)
    result = ConditionMatch(AsIs(), sigma=0.0, side=2).embed(images)
    root = np.sqrt(500.0)
    np.testing.assert_allclose(result[0], np.array([-15, -5, 5, 15]) / root, atol=1e-6)
    # (-15, -5, 5, 15) . (-1, -1, -1, 3) / (sqrt(500) sqrt(12))
    assert result[0] @ result[2] == pytest.approx(60 / np.sqrt(6000), abs=1e-6)
    assert result[0] @ result[1] == pytest.approx(-1, abs=1e-6)


def test_a_moved_edge_still_matches_because_of_the_blur() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    cv2.circle(image, (30, 30), 14, (255, 255, 255), -1)
    other = np.zeros_like(image)
    cv2.rectangle(other, (8, 20), (50, 44), (255, 255, 255), -1)
    images = np.stack([image, np.roll(image, 1, axis=1), other])
    sharp, soft = (ConditionMatch(sigma=sigma, side=64).embed(images) for sigma in (0.0, 2.0))
    assert soft[0] @ soft[1] > 0.9 > sharp[0] @ sharp[1]
    assert soft[0] @ soft[1] > soft[0] @ soft[2] + 0.3


def test_maps_without_contrast_resemble_nobody() -> None:
    grey = np.full((2, 64, 64, 3), 77, np.uint8)
    for attacker in (ConditionMatch(), ConditionMatch(AsIs()), ConditionMatch(NoCondition())):
        np.testing.assert_array_equal(attacker.embed(grey), np.zeros((2, 1024)))
    assert ConditionMatch().embed(grey[:0]).shape == (0, 1024)


def test_what_it_is() -> None:
    attacker = ConditionMatch()
    assert attacker.name == "condition_match"
    assert not attacker.learns_from_anonymized
    assert not attacker.recognizes_clean_faces
    assert attacker.probe_condition is None
    settings = [
        attacker,
        ConditionMatch(sigma=1.0),
        ConditionMatch(side=16),
        ConditionMatch(SoftEdge()),
    ]
    assert len({hashing.fingerprint(hashing.canonicalize(setting)) for setting in settings}) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"sigma": -1.0}, "^sigma: "), ({"sigma": float("nan")}, "^sigma: "), ({"side": 1}, "^side")],
)
def test_wrong_settings_are_named(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConditionMatch(**settings)  # type: ignore[arg-type]
