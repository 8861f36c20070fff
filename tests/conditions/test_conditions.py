from pathlib import Path

import cv2
import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from cldmray.arrays import Images
from cldmray.conditions import Canny, Coarse, Condition, ControlNetAux, NoCondition, SoftEdge

CONF = Path(__file__).parents[2] / "conf" / "condition"


@pytest.fixture
def images() -> Images:
    """Two images of 48x40: a bright square on noise, and a flat grey."""
    noise = np.random.default_rng(3).integers(0, 30, (48, 40, 3), dtype=np.uint8)
    noise[10:30, 8:28] = 220
    both = np.stack([noise, np.full_like(noise, 90)])
    both.setflags(write=False)
    return both


@pytest.mark.parametrize(
    "condition", [Canny(), Coarse(), SoftEdge(), NoCondition()], ids=lambda item: str(item.name)
)
def test_maps_have_the_input_shape_and_one_repeated_channel(
    condition: Condition, images: Images
) -> None:
    maps = condition(images)
    assert maps.shape == images.shape
    assert maps.dtype == np.uint8
    assert (maps == maps[..., :1]).all()
    assert condition(images[:0]).shape == (0, 48, 40, 3)


@pytest.mark.parametrize(
    "condition", [Canny(), Coarse(), SoftEdge()], ids=lambda item: str(item.name)
)
def test_a_map_does_not_depend_on_its_neighbours(condition: Condition, images: Images) -> None:
    np.testing.assert_array_equal(condition(images[:1])[0], condition(images[::-1])[1])


def test_canny_is_opencv_on_grey(images: Images) -> None:
    grey = cv2.cvtColor(images[0], cv2.COLOR_RGB2GRAY)
    maps = Canny(low=50, high=120)(images)
    np.testing.assert_array_equal(maps[0, ..., 0], cv2.Canny(grey, 50, 120))
    assert set(np.unique(maps)) == {0, 255}


def test_soft_edge_is_graded_strong_on_the_border_and_black_on_a_flat_image(
    images: Images,
) -> None:
    maps = SoftEdge()(images)[..., 0]
    assert maps[0, 20, 8] > 200
    assert maps[0, 20, 18] == 0
    assert len(np.unique(maps[0])) > 20
    assert not maps[1].any()


def test_soft_edge_of_a_ramp_is_its_slope_over_the_floor() -> None:
    ramp = np.repeat((2 * np.arange(64, dtype=np.uint8))[None, :, None], 64, axis=0)
    maps = SoftEdge(floor=8.0)(np.repeat(ramp, 3, axis=2)[None])
    assert maps[0, 32, 32, 0] == round(255 * 2 / 8)


def test_soft_edge_hardly_shows_faint_noise() -> None:
    noise = np.random.default_rng(0).integers(99, 102, (1, 32, 32, 1), dtype=np.uint8)
    assert SoftEdge()(np.repeat(noise, 3, axis=3)).max() < 40


def test_coarse_maps_are_averages_of_squares(images: Images) -> None:
    fine, coarse = Canny()(images)[0, ..., 0], Coarse(factor=4)(images)[0, ..., 0]
    np.testing.assert_array_equal(Coarse(factor=1)(images)[0, ..., 0], fine)
    means = fine.reshape(12, 4, 10, 4).mean((1, 3))
    assert coarse.max() <= np.ceil(means.max())
    assert coarse.mean() == pytest.approx(fine.mean(), rel=0.02)
    steps = np.abs(np.diff(coarse.astype(int), axis=1))
    assert steps.max() <= np.ceil(np.abs(np.diff(means, axis=1)).max() / 4) + 1
    assert np.abs(np.diff(fine.astype(int), axis=1)).max() == 255


def test_coarse_maps_of_a_factor_beyond_the_image_are_flat(images: Images) -> None:
    for item in Coarse(factor=100)(images):
        assert np.ptp(item) == 0


def test_no_condition_is_black(images: Images) -> None:
    assert not NoCondition()(images).any()


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: Canny(low=-1), "low"),
        (lambda: Canny(low=100, high=100), "high"),
        (lambda: Coarse(factor=0), "factor"),
        (lambda: SoftEdge(sigma=0), "sigma"),
        (lambda: SoftEdge(floor=0), "floor"),
        (lambda: ControlNetAux("edges"), "detector"),
        (lambda: ControlNetAux("hed", resolution=100), "resolution"),
        (lambda: ControlNetAux("canny", repo="somewhere"), "repo"),
        (lambda: ControlNetAux("canny", weights="a.pth"), "weights"),
    ],
)
def test_a_wrong_setting_is_named(build: object, key: str) -> None:
    assert callable(build)
    with pytest.raises(ValueError, match=rf"^{key}\b"):
        build()


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_yaml_holds_every_field_with_its_default(path: Path) -> None:
    config = OmegaConf.load(path)
    condition = instantiate(config)
    assert isinstance(condition, Condition)
    assert hash(condition) == hash(instantiate(config))
    fields = {str(key) for key in config} - {"_target_"}
    assert fields == set(type(condition).__dataclass_fields__)  # type: ignore[attr-defined]
    if path.stem != "controlnet_aux":
        assert condition == type(condition)()
        assert condition.name == {"coarse": "canny-coarse2"}.get(path.stem, path.stem)
