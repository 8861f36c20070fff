from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from cldmray.anonymizers.base import Anonymizer, Batch
from cldmray.anonymizers.baselines import Blur, ConditionMap, NoOp, Pixelate
from cldmray.anonymizers.k_same import KSame
from cldmray.anonymizers.precomputed import Precomputed
from cldmray.arrays import Images
from cldmray.conditions.canny import Canny
from cldmray.conditions.soft_edge import SoftEdge
from cldmray.errors import BadInputError
from cldmray.faces.sources.folder import FolderFaces

CONF = Path(__file__).parents[2] / "conf" / "anonymizers"
BASELINES = ["no_op", "blur", "pixelate", "k_same", "precomputed"]


def batch(images: Images) -> Batch:
    images.setflags(write=False)
    ids = [f"{position:016x}" for position in range(len(images))]
    return Batch(ids, images, np.arange(len(images)))


@pytest.fixture
def noise() -> Images:
    return np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "anonymizer", [NoOp(), Blur(), Pixelate()], ids=lambda item: str(item.name)
)
class TestEveryBaseline:
    def test_keeps_shape_and_leaves_the_input_alone(
        self, anonymizer: Anonymizer, noise: Images
    ) -> None:
        before = noise.copy()
        anonymized = anonymizer.open()(batch(noise))
        assert anonymized.shape == noise.shape
        assert anonymized.dtype == np.uint8
        assert not np.shares_memory(anonymized, noise)
        np.testing.assert_array_equal(noise, before)
        assert anonymizer.open()(batch(noise[:0])).shape == (0, 32, 48, 3)

    def test_an_image_does_not_depend_on_its_neighbours(
        self, anonymizer: Anonymizer, noise: Images
    ) -> None:
        anonymize = anonymizer.open()
        np.testing.assert_array_equal(
            anonymize(batch(noise)), anonymize(batch(noise[::-1].copy()))[::-1]
        )

    def test_a_flat_image_stays(self, anonymizer: Anonymizer, noise: Images) -> None:
        flat = np.full((1, 20, 20, 3), (10, 130, 250), np.uint8)
        np.testing.assert_array_equal(anonymizer.open()(batch(flat)), flat)

    def test_takes_every_sample(self, anonymizer: Anonymizer, noise: Images) -> None:
        assert anonymizer.select(["a", "b"]).tolist() == [True, True]
        assert not anonymizer.conditions
        assert not anonymizer.resources


def test_copy_is_the_original(noise: Images) -> None:
    np.testing.assert_array_equal(NoOp().open()(batch(noise)), noise)


def test_blur_spreads_a_point_as_a_gaussian() -> None:
    point = np.zeros((1, 41, 41, 3), np.uint8)
    point[0, 20, 20] = 255
    blurred = Blur(sigma=1.0).open()(batch(point))[0, ..., 0]
    assert blurred[20, 20] == pytest.approx(255 / (2 * np.pi), abs=1)
    assert blurred[20, 21] == pytest.approx(255 / (2 * np.pi) * np.exp(-0.5), abs=1)
    assert blurred[20, 25] == 0


def test_blur_mirrors_the_border() -> None:
    ramp = np.zeros((1, 64, 64, 3), np.uint8)
    ramp[0, :, :32] = 200
    blurred = Blur(sigma=3.0).open()(batch(ramp))
    assert (blurred[0, :, 0] == 200).all()
    assert (blurred[0, :, -1] == 0).all()


def test_a_wider_blur_leaves_less(noise: Images) -> None:
    spreads = [Blur(sigma=sigma).open()(batch(noise)).std() for sigma in (1.0, 4.0, 20.0)]
    assert spreads[0] > spreads[1] > spreads[2]


def test_pixelate_publishes_block_means() -> None:
    image = np.zeros((1, 4, 8, 3), np.uint8)
    image[0, :2, :2, 0] = [[10, 20], [30, 40]]
    mosaic = Pixelate(blocks=2).open()(batch(image))
    assert (mosaic[0, :2, :2, 0] == 25).all()
    assert mosaic.sum() == 4 * 25


@pytest.mark.parametrize("blocks", [1, 5, 7, 32])
def test_pixelate_has_as_many_colours_as_blocks(noise: Images, blocks: int) -> None:
    mosaic = Pixelate(blocks=blocks).open()(batch(noise))[0]
    across = round(48 * blocks / 32)
    assert len(np.unique(mosaic.reshape(-1, 3), axis=0)) <= blocks * across
    changes = (np.diff(mosaic.astype(int), axis=1) != 0).any(axis=(0, 2)).sum()
    assert changes <= across - 1


def test_pixelate_rejects_more_blocks_than_pixels(noise: Images) -> None:
    with pytest.raises(BadInputError, match="33 blocks asked of images of 48x32"):
        Pixelate(blocks=33).open()(batch(noise))


def test_a_condition_map_is_what_the_model_would_be_given(noise: Images) -> None:
    maps = ConditionMap().open()(batch(noise))
    np.testing.assert_array_equal(maps, Canny()(noise))
    assert 0 < (maps == 255).mean() < 1
    other = ConditionMap(SoftEdge())
    np.testing.assert_array_equal(other.open()(batch(noise)), SoftEdge()(noise))
    assert [ConditionMap().name, other.name] == ["canny-map", "soft_edge-map"]
    assert ConditionMap(label="maps").name == "maps"


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: ConditionMap(label=""), "label"),
        (lambda: Blur(sigma=0), "sigma"),
        (lambda: Blur(sigma=float("nan")), "sigma"),
        (lambda: Pixelate(blocks=0), "blocks"),
        (lambda: KSame(k=1), "k"),
        (lambda: KSame(thumbnail=17), "thumbnail"),
        (lambda: NoOp(label="a b"), "label"),
        (lambda: Blur(label="../up"), "label"),
        (lambda: Pixelate(label=""), "label"),
        (lambda: KSame(label="x" * 81), "label"),
        (lambda: Precomputed("", FolderFaces("x")), "root"),
        (lambda: Precomputed("there", "x"), "faces"),
        (lambda: Precomputed("there", FolderFaces("x"), label="/"), "label"),
        (lambda: Precomputed("there", FolderFaces("x"), shows="all"), "shows"),
    ],
)
def test_a_wrong_setting_is_named(build: Callable[[], object], key: str) -> None:
    with pytest.raises(ValueError, match=rf"^{key}\b"):
        build()


def test_a_label_tells_two_settings_apart() -> None:
    assert Blur().name == "blur"
    assert Blur(sigma=8, label="blur-8").name == "blur-8"
    assert [item.name for item in (NoOp(), Pixelate(), KSame())] == ["no_op", "pixelate", "k_same"]


@pytest.mark.parametrize("name", BASELINES)
def test_yaml_holds_every_field_with_its_default(name: str) -> None:
    path = CONF / f"{name}.yaml"
    assert path.read_text().startswith(f"# @package anonymizers.{name}\n# ")
    whole = OmegaConf.create({"faces": OmegaConf.load(CONF.parent / "faces" / "synthetic.yaml")})
    config = OmegaConf.merge(whole, {"one": OmegaConf.load(path)}).one
    keys = [str(key) for key in config]
    given = {key: f"some_{key}" for key in keys if OmegaConf.is_missing(config, key)}
    anonymizer = instantiate(config, **given)
    assert isinstance(anonymizer, Anonymizer)
    required = [field.name for field in fields(anonymizer) if field.default is MISSING]  # type: ignore[arg-type]
    assert anonymizer == type(anonymizer)(**{key: getattr(anonymizer, key) for key in required})
    assert anonymizer.name == name
    assert set(keys) - {"_target_"} == set(type(anonymizer).__dataclass_fields__)  # type: ignore[union-attr]
    if name != "precomputed":  # OmegaConf takes no fields of abstract types, such as its source
        OmegaConf.structured(type(anonymizer))
