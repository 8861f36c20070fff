"""cluster.yaml is what Ray's launcher takes, and agrees with the project's own pins."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def config():
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_ray_takes_it(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))


def test_head_has_no_gpu_and_gpu_nodes_are_spot_from_zero(config):
    types = dict(config["available_node_types"])
    assert "GPU" not in types.pop(config["head_node_type"])["resources"]
    for kind in types.values():
        assert kind["resources"]["GPU"] >= 1
        assert kind["min_workers"] == 0
        assert 0 < kind["max_workers"] <= config["max_workers"]
        assert kind["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert config["idle_timeout_minutes"] > 0


def test_images_bring_the_pinned_ray(config):
    for image in (config["docker"]["head_image"], config["docker"]["worker_image"]):
        assert image.startswith(f"rayproject/ray:{pins()['ray']}-py311")


def test_setup_installs_extras_that_exist_under_the_constraints(config):
    (command,) = [line for line in config["setup_commands"] if "pip install" in line]
    assert "-c constraints.txt" in command
    extras = re.search(r"\.\[([\w,]+)\]", command)[1].split(",")
    assert {"gpu", "controlnet"} <= set(extras)
    assert "cpu" not in extras
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(extras) <= set(project["optional-dependencies"])


def test_mlflow_is_named_once_for_all_nodes(config):
    named = [line for line in config["docker"]["run_options"] if "MLFLOW_TRACKING_URI=" in line]
    assert len(named) == 1


def test_constraints_are_exact_and_name_no_local_build():
    assert pins()["torch"] == "2.13.0"
    odd = [f"{name}=={version}" for name, version in pins().items() if "+" in version]
    assert odd == []
