"""Every YAML of the group builds its class and lists all of its fields."""

from dataclasses import fields
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from cldmray.faces import FaceSource, SplitConfig

FILES = sorted((Path(__file__).parents[2] / "conf" / "faces").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_yaml(path):
    config = OmegaConf.load(path)
    needed = {"root": "somewhere", "table": "somewhere.csv"}
    for key in OmegaConf.missing_keys(config):
        config[key] = needed[key]
    source = instantiate(config)
    assert isinstance(source, FaceSource)
    assert source.name == path.stem
    assert source.crop is None or type(source.crop) is list
    assert set(config) - {"_target_"} == {field.name for field in fields(source) if field.init}
    assert path.read_text().startswith("# ")


def test_split_config_as_a_structured_config():
    config = OmegaConf.merge(OmegaConf.structured(SplitConfig), {"seed": 3, "evaluation": "x"})
    assert OmegaConf.to_object(config) == SplitConfig(seed=3, evaluation="x")
