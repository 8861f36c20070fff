"""The model that ships with the package: small, safe to read, documented, and able to draw."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir

from cldmray.anonymizers.base import Batch
from cldmray.anonymizers.diffusion import Control, Diffusion, model_folder
from cldmray.arrays import Images
from cldmray.conditions import Canny, Depth, SoftEdge
from cldmray.conditions.depth import EMBEDDED_FOLDER as DEPTH_FOLDER
from cldmray.config.instantiate import build, to_container
from cldmray.faces.records import decode_images
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.hashing import identity_hash
from cldmray.models import cldm_card

FOLDER = model_folder.EMBEDDED_FOLDER
CONF = Path(__file__).resolve().parents[2] / "conf"
LARGEST = 40_000_000


def files() -> list[Path]:
    assert FOLDER.is_dir(), f"no {FOLDER.name} in the package; jobs/train_cldm.py trains it"
    return sorted(path for path in FOLDER.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def images() -> Images:
    source = SyntheticFaces(n_identities=4, images_per_identity=1, size=128)
    return decode_images(filter(None, source.read(source.listing()["location"].to_pylist())))


def draw(anonymizer: Diffusion, images: Images, first_seed: int = 0) -> Images:
    torch.set_num_threads(1)
    seeds = np.arange(first_seed, first_seed + len(images))
    maps = {name: extract(images) for name, extract in anonymizer.conditions.items()}
    return anonymizer.open()(Batch([str(seed) for seed in seeds], images, seeds, maps))


CONDITIONS = {"canny": Canny(), "soft_edge": SoftEdge(), "depth": Depth()}
SINGLE = {
    name: Diffusion(controls={name: Control(condition, f"controlnet-{name}")}, device="cpu")
    for name, condition in CONDITIONS.items()
}
CANNY = SINGLE["canny"]
PAIR = Diffusion(controls={**CANNY.controls, **SINGLE["depth"].controls}, device="cpu")


def test_it_is_small_with_the_depth_network() -> None:
    paths = [*files(), *DEPTH_FOLDER.iterdir()]
    assert sum(path.stat().st_size for path in paths) <= LARGEST


def test_its_weights_are_safetensors_only() -> None:
    kinds = {path.suffix for path in files()}
    assert ".safetensors" in kinds
    assert kinds <= {".json", ".md", ".safetensors", ".txt"}


def test_it_is_whole() -> None:
    model_folder.check_pipeline(FOLDER)
    for name, anonymizer in SINGLE.items():
        model_folder.check_component(FOLDER / f"controlnet-{name}")
        assert len(anonymizer.version()) == 16


def test_no_path_of_the_training_machine_is_in_it() -> None:
    for path in files():
        if path.suffix in {".json", ".md", ".txt"}:
            text = path.read_text("utf-8")
            assert not any(f"/{root}/" in text for root in ("home", "tmp", "work", "root")), path
    for path in FOLDER.rglob("config.json"):
        assert "/" not in json.loads(path.read_text()).get("_name_or_path", "")


def test_the_card_says_how_it_was_made() -> None:
    card = (FOLDER / cldm_card.CARD_FILE).read_text()
    assert yaml.safe_load(card.split("---\n")[1])["license"]
    settings = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert {"training", "splits", "conditions", "synthetic"} <= set(settings)


def test_its_people_are_listed_by_hash() -> None:
    assert (FOLDER / cldm_card.IDENTITIES_FILE).is_file()
    trained = CANNY.trained_on()
    assert len(trained) > 100
    card = (FOLDER / cldm_card.CARD_FILE).read_text()
    seed = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])["synthetic"]["seed"]
    assert identity_hash(f"person_{seed}_000000") in trained
    assert identity_hash("person_0_000000") not in trained


@pytest.mark.parametrize(
    "anonymizer", [Diffusion(device="cpu"), *SINGLE.values(), PAIR], ids=lambda item: item.name
)
def test_it_draws_the_same_again(anonymizer: Diffusion, images: Images) -> None:
    drawn = draw(anonymizer, images)
    assert drawn.shape == (4, 128, 128, 3)
    assert drawn.dtype == np.uint8
    assert (drawn.reshape(4, -1).std(1) > 10).all()
    np.testing.assert_array_equal(drawn, draw(anonymizer, images))
    assert (drawn != draw(anonymizer, images, first_seed=9)).any((1, 2, 3)).all()


def standardised_edges(images: Images) -> np.ndarray:
    """Soft edges of each image as one row of mean 0 and deviation 1."""
    edges = SoftEdge()(images)[..., 0].reshape(len(images), -1).astype(float)
    result: np.ndarray = (edges - edges.mean(1, keepdims=True)) / edges.std(1, keepdims=True)
    return result


@pytest.mark.parametrize("name", ["canny", "soft_edge"])
def test_it_follows_the_edges_that_it_is_given(name: str, images: Images) -> None:
    drawn, given = standardised_edges(draw(SINGLE[name], images)), standardised_edges(images)
    correlation = drawn @ given.T / given.shape[1]
    own = np.eye(len(images), dtype=bool)
    assert correlation[own].mean() > correlation[~own].mean() + 0.1


def test_it_follows_the_depth_that_it_is_given(images: Images) -> None:
    given = Depth()(images).astype(float)
    drawn = Depth()(draw(SINGLE["depth"], images)).astype(float)
    away = [[np.abs(item - other).mean() for other in given] for item in drawn]
    own = np.eye(len(images), dtype=bool)
    assert np.array(away)[own].mean() < 0.7 * np.array(away)[~own].mean()


@pytest.mark.parametrize(
    "key", ["cldm_none", "cldm_canny", "cldm_soft_edge", "cldm_depth", "cldm_canny_depth"]
)
def test_the_shipped_configuration_opens_it(key: str, images: Images) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = to_container(compose("audit", [f"anonymizers=[{key}]"]))
    anonymizer = build(composed["anonymizers"][key], Diffusion, f"anonymizers.{key}")
    assert draw(anonymizer, images[:1]).shape == (1, 128, 128, 3)
