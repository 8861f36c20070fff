"""What is made of a search's trials."""

import json
import math
from pathlib import Path

import pyarrow as pa
import yaml
from hydra import compose, initialize_config_dir

from cldmray.attackers.reconstruction.attacker import ReconstructionAttacker
from cldmray.attackers.reconstruction.unet import UNetReconstruction
from cldmray.config.audit import build_audit
from cldmray.config.reconstruction import build_reconstruction
from cldmray.engine.tuning import TRIALS, SearchDimension
from cldmray.pipelines.reconstruction_search import as_attacker, best_candidate, longest, trials_of

CONF = Path(__file__).resolve().parents[2] / "conf"
SPACE = {"blocks": SearchDimension(choices=[1, 2]), "budget": SearchDimension(choices=[5, None])}


def row(
    name: str, blocks: int, budget: int | None, status: str, *numbers: float
) -> dict[str, object]:
    queries, objective, rank_1 = numbers
    return {
        "trial": name, "status": status, "queries": int(queries), "steps": 4, "curve": "[]",
        "settings": json.dumps({"blocks": json.dumps(blocks), "budget": json.dumps(budget)}),
        "objective": objective, "validation_rank_1": rank_1, "validation_cosine": math.nan,
        "seconds": 1.0,
    }  # fmt: skip


TABLE = pa.Table.from_pylist(
    [
        row("a", 2, 5, "finished", 5, 0.5, 0.2),
        row("b", 1, None, "stopped", 50, 0.4, 0.3),
        row("c", 1, None, "finished", 50, 0.3, 0.1),
        row("d", 2, None, "failed", 0, -1.0, math.nan),
    ],
    TRIALS,
)


def test_trials_are_read() -> None:
    trials = trials_of(TABLE, SPACE)
    assert [trial.settings for trial in trials[:2]] == [
        {"blocks": 2, "budget": 5}, {"blocks": 1, "budget": None},
    ]  # fmt: skip
    assert [trial.best for trial in trials] == [True, False, False, False]
    assert [trial.optimal for trial in trials] == [True, True, False, False]
    assert trials[3].validation_rank_1 == 0 and trials[0].validation_cosine == 0


def test_the_best_becomes_an_attacker(tmp_path: Path) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = build_reconstruction(
            compose("invert", ["reconstruction.search.trials=2", "anonymizers=[blur]"])
        )
    assert longest(config) == 600
    best = best_candidate(config, trials_of(TABLE, SPACE)[0])
    assert (
        best.reconstruction == UNetReconstruction(blocks=2, label="unet-tuned") and best.budget == 5
    )
    text = as_attacker(config, best, "reconstruction_best")
    assert yaml.safe_load(text)["model"]["blocks"] == 2
    target = tmp_path / "attackers" / "reconstruction_best.yaml"
    target.parent.mkdir()
    target.write_text(text)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = ["attackers=[reconstruction_best]", f"hydra.searchpath=[file://{tmp_path}]"]
        attacker = build_audit(compose("audit", overrides)).attackers["reconstruction_best"]
    assert attacker == ReconstructionAttacker(
        UNetReconstruction(blocks=2), budget=5, label="reconstruction_best"
    )


def test_the_attacker_of_a_search_looks_where_the_next_source_has_its_faces() -> None:
    overrides = ["reconstruction.search.trials=2", "faces=folder", "faces.root=faces"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = build_reconstruction(compose("invert", overrides))
    best = best_candidate(config, trials_of(TABLE, SPACE)[0])
    assert isinstance(best.reconstruction, UNetReconstruction)
    assert best.reconstruction.guide.crop == config.audit.faces.face_crop is not None
    written = yaml.safe_load(as_attacker(config, best, "reconstruction_best"))
    assert written["model"]["guide"]["crop"] is None
    assert written["validation_recognizer"]["crop"] is None
