"""An anonymizer, a trained attacker and a recognizer of another package audit like our own.

The package is installed into a folder by hand: its module, and the metadata that pip would write
for its entry points. The audits run in a process of their own, as its user would start them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cldmray.faces.records import decode_images

ROOT = Path(__file__).resolve().parents[1]
MODULE = '''
"""Face tools of a laboratory."""

from dataclasses import dataclass

import numpy as np
import torch

from cldmray import Anonymizer, Recognizer
from cldmray.attackers.learning import LearningAttacker


@dataclass(frozen=True)
class Darken(Anonymizer):
    """Darkens images by a factor."""

    factor: int = 2
    name = "darken"

    def open(self):
        return lambda batch: batch.images // self.factor


@dataclass(frozen=True)
class Whitened(LearningAttacker):
    """Small grey images, whitened by what it has learnt of originals and anonymized images."""

    learns_from_anonymized = True
    dimensions = 64

    def learn(self, data):
        images = data.images("attacker")
        values = small(np.concatenate([images.originals, images.anonymized]))
        return {"mean": values.mean(0), "deviation": values.std(0) + 1.0}

    def embed(self, images, learnt):
        values = (small(images) - learnt["mean"]) / learnt["deviation"]
        return np.float32(values / np.linalg.norm(values, axis=1, keepdims=True))


@dataclass(frozen=True, kw_only=True)
class TorchPixels(Recognizer):
    """A network of one layer, in PyTorch."""

    name = "torch_pixels"
    dimension = 16
    side = 32

    def version(self):
        return "1"

    def embed_aligned(self, faces):
        with torch.inference_mode():
            grey = torch.from_numpy(faces).float().mean(3)[:, None]
            return (torch.nn.functional.avg_pool2d(grey, 8).flatten(1) - 127.5).numpy()


def small(images):
    step = images.shape[1] // 8
    grey = images.mean(3)[:, : 8 * step, : 8 * step].reshape(len(images), 8, step, 8, step)
    return grey.mean((2, 4)).reshape(len(images), -1)
'''
ENTRY_POINTS = """
[cldmray.anonymizers]
darken = facelab:Darken
[cldmray.attackers]
whitened = facelab:Whitened
[cldmray.recognizers]
torch_pixels = facelab:TorchPixels
"""
SETUP = """
import json
import cldmray
from cldmray.attackers.pretrained import Pretrained
from cldmray.config.audit import build_audit
from cldmray.config.compose import compose
from cldmray.pipelines.jobs import run_audit
from facelab import Darken, TorchPixels, Whitened

SETTINGS = {
    "faces.n_identities": 20, "faces.images_per_identity": 4, "splits.min_images": 4,
    "splits.n_evaluation_identities": 6, "splits.validation_fraction": 0.3,
    "audit.utility": [], "audit.attribution": False, "audit.n_bootstrap": 100,
    "audit.n_inference_images": 0,
    "audit.protocols": ["full_ref"], "audit.galleries": ["source_excluded"],
    "engine.actors": 1, "cache_dir": "cache",
}
"""
AUDITS = """
def rates(result):
    table = result.table.query("measure == 'rank_1'")
    return sorted([r.anonymizer, r.attacker, round(r.value, 6)] for r in table.itertuples())

ways = {}
ways["objects"] = rates(cldmray.audit(
    anonymizers=[Darken()], attackers=[Pretrained(TorchPixels()), Whitened()],
    output="objects", **SETTINGS,
))
target = {"_target_": "cldmray.attackers.pretrained.Pretrained",
          "recognizer": {"_target_": "facelab.TorchPixels"}}
ways["targets"] = rates(cldmray.audit(
    anonymizers=[{"_target_": "facelab.Darken"}],
    attackers=[target, {"_target_": "facelab.Whitened"}], output="targets", **SETTINGS,
))
overrides = [f"{key}={json.dumps(value).replace(' ', '')}" for key, value in SETTINGS.items()]
settings = compose("audit", [
    "anonymizers=[darken]", "attackers=[pretrained,whitened]",
    "recognizer@attackers.pretrained.recognizer=torch_pixels", "output=points", "~tracking",
    *overrides,
])
ways["entry_points"] = rates(run_audit(build_audit(settings), settings))
json.dump(ways, open("ways.json", "w"))
"""
AUDIT = """
cldmray.audit(
    anonymizers=[Darken()], attackers=[Pretrained(TorchPixels()), Whitened()],
    output="edited", **SETTINGS,
)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Variables of a process that sees the package."""
    site = tmp_path / "site"
    info = site / "facelab-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "facelab.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: facelab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    paths = [str(site), str(ROOT)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "120"}


def run(arguments: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=590,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_its_options_are_listed(tmp_path: Path, environment: dict[str, str]) -> None:
    command = "from cldmray.cli import main; main()"
    listed = run(["-c", command, "list", "attackers"], tmp_path, environment)
    assert "whitened" in listed and "(from facelab)" in listed
    listed = run(["-c", command, "list", "anonymizers"], tmp_path, environment)
    assert "Darkens images by a factor. (from facelab)" in listed


@pytest.mark.slow
@pytest.mark.usefixtures("cache_dir")
def test_their_audits(tmp_path: Path, environment: dict[str, str]) -> None:
    """Three ways to name them are one, and an edited anonymizer makes new images."""
    (tmp_path / "audits.py").write_text(SETUP + AUDITS)
    run(["audits.py"], tmp_path, environment)
    ways = json.loads((tmp_path / "ways.json").read_text())
    rows = ways["objects"]
    assert {(row[0], row[1]) for row in rows} == {("darken", "pretrained"), ("darken", "whitened")}
    assert all(0 <= value <= 1 for _, _, value in rows)
    assert ways["targets"] == ways["entry_points"] == rows

    (first,) = tmp_path.glob("cache/anonymize-darken-*")
    body = "batch.images // self.factor"
    assert body in MODULE
    edited = MODULE.replace(body, f"255 - {body}")
    (tmp_path / "site" / "facelab.py").write_text(edited)
    (tmp_path / "audit.py").write_text(SETUP + AUDIT)
    run(["audit.py"], tmp_path, environment)
    (second,) = set(tmp_path.glob("cache/anonymize-darken-*")) - {first}
    before, after = (images_of(folder) for folder in (first, second))
    assert np.array_equal(after, 255 - before)


def images_of(folder: Path) -> np.ndarray:
    table = pq.ParquetDataset(sorted(map(str, folder.glob("part-*.parquet")))).read()
    table = table.sort_by([("sample_id", "ascending"), ("sample", "ascending")])
    return decode_images(table["image"].to_pylist())
