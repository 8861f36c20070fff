"""cluster.yaml is what Ray's launcher takes, and agrees with the project's own pins."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config():
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


@pytest.fixture(params=["gcp", "azure"])
def other_cloud(request, config):
    """What the comments at the end give for another cloud, laid over the rest."""
    text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
    blocks = [
        yaml.safe_load("\n".join(line.removeprefix("#|") for line in block.splitlines()))
        for block in re.findall(r"(?:^#\|.*\n)+", text, re.MULTILINE)
    ]
    (block,) = [block for block in blocks if block["provider"]["type"] == request.param]
    assert list(block["available_node_types"]) == list(config["available_node_types"])
    for name, kind in block.pop("available_node_types").items():
        config["available_node_types"][name] |= kind
    assert set(block) <= set(config)
    return config | block


def test_ray_takes_it(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))


def test_ray_finds_what_is_wrong(config):
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    config["available_node_types"]["gpu_spot"]["max_worker"] = 3
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(prepare_config(config))


def test_ray_takes_the_other_clouds(other_cloud):
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(other_cloud))
    for kind in other_cloud["available_node_types"].values():
        assert ("GPU" in kind["resources"]) == ("SPOT" in json.dumps(kind["node_config"]).upper())
    if other_cloud["provider"]["type"] == "azure":
        folder = Path(ray.autoscaler.__file__).parent / "_private/_azure"
        settings = json.loads((folder / "azure-vm-template.json").read_text())["parameters"]
        for kind in other_cloud["available_node_types"].values():
            assert set(kind["node_config"]["azure_arm_parameters"]) <= set(settings)


def test_head_has_no_gpu_and_gpu_nodes_are_spot_from_zero(config):
    types = dict(config["available_node_types"])
    assert "GPU" not in types.pop(config["head_node_type"])["resources"]
    for kind in types.values():
        assert kind["resources"]["GPU"] >= 1
        assert kind["min_workers"] == 0
        assert 0 < kind["max_workers"] <= config["max_workers"]
        assert kind["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert config["idle_timeout_minutes"] > 0


def test_images_bring_the_pinned_ray(config, pins):
    for image in (config["docker"]["head_image"], config["docker"]["worker_image"]):
        assert image.startswith(f"rayproject/ray:{pins['ray']}-py311")


def test_setup_installs_extras_that_exist_under_the_constraints(config):
    (command,) = [line for line in config["setup_commands"] if "pip install" in line]
    assert "-c constraints.txt" in command
    extras = re.search(r"\.\[([\w,]+)\]", command)[1].split(",")
    assert {"gpu", "controlnet"} <= set(extras)
    assert "cpu" not in extras
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(extras) <= set(project["optional-dependencies"])


def environment(config):
    options = config["docker"]["run_options"]
    pairs = [option.removeprefix("--env ") for option in options if option.startswith("--env ")]
    assert len(pairs) == len({pair.split("=")[0] for pair in pairs})
    return dict(pair.split("=", 1) for pair in pairs)


def test_every_node_knows_storage_and_mlflow(config):
    settings = environment(config)
    assert settings["CLDMRAY_STORAGE"].startswith("s3://")
    assert settings["MLFLOW_TRACKING_URI"].startswith("http")
    assert settings["RAY_AUTH_MODE"] == "token"
    assert int(settings["RAY_JOB_STOP_WAIT_TIME_S"]) >= 30


def test_the_project_is_copied_without_what_stays_at_home(config):
    assert config["file_mounts"]["/home/ray/cldmray"] == "."
    assert {"**/.git/**", "**/.venv/**", "**/runs/**"} <= set(config["rsync_exclude"])
    (install,) = [line for line in config["setup_commands"] if "pip install" in line]
    assert install.startswith("cd /home/ray/cldmray && ")


def test_nothing_listens_to_the_world(config):
    (start,) = [line for line in config["head_start_ray_commands"] if "--head" in line]
    assert "dashboard-host" not in start  # Ray's default is 127.0.0.1


def test_no_secret_is_in_it():
    text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
    assert not re.search(r"(?i)(secret_access_key|password|token)\s*[:=]\s*(?!token\b)\w", text)


def test_constraints_are_exact_and_name_no_local_build(pins):
    assert pins["torch"] == "2.13.0"
    odd = [f"{name}=={version}" for name, version in pins.items() if "+" in version]
    assert odd == []
