"""How many calls of our own lie between a job and its essential lines: docs/architecture.md."""

import json
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cldmray.anonymizers.base import AnonymizeFunction
from cldmray.anonymizers.diffusion import Control, Diffusion, inference
from cldmray.conditions import Canny
from cldmray.config.audit import build_audit
from cldmray.config.compose import compose
from cldmray.config.instantiate import settings_of
from cldmray.engine.artifacts import write_records
from cldmray.engine.map_stages import anonymize
from cldmray.engine.stages import StageHandle, Stages, StageSpec
from cldmray.evaluation import identification
from cldmray.gallery.scores import EmbeddingScores, ScoreBlock
from cldmray.metrics.identification import success_at_rank
from cldmray.pipelines.jobs import run_audit

MOST = {"pipeline": 7, "scores": 5, "rank_1": 4}


def caller() -> Callable[[], list[str]]:
    """A function that is made here, so that it travels to the workers by value."""

    def calls() -> list[str]:
        """Functions of cldmray on the stack of this thread, the outermost first."""
        return [
            frame.name
            for frame in traceback.extract_stack()
            if "/cldmray/" in frame.filename and not frame.name.startswith("<")
        ]

    return calls


calls = caller()


def recording(file: Path) -> Diffusion:
    """An anonymizer that writes to a file by which calls its pipeline is reached."""
    stack = caller()

    class Recorder:
        def __init__(self, pipe: Any) -> None:
            self.pipe = pipe

        def __call__(self, **inputs: Any) -> Any:
            file.write_text(json.dumps(stack()), encoding="utf-8")
            return self.pipe(**inputs)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.pipe, name)

    @dataclass(frozen=True)
    class Recording(Diffusion):
        def open_on(self, device: str) -> AnonymizeFunction:
            runner = Diffusion.open_on(self, device)
            assert isinstance(runner, inference.PipelineRunner)
            runner.pipe = Recorder(runner.pipe)
            return runner

    canny = Control(Canny(), "controlnet-canny")
    return Recording(controls={"canny": canny}, num_inference_steps=1)


def audited(folder: Path) -> None:
    settings = compose(
        "demo",
        [
            "faces.n_identities=10",
            "splits.n_evaluation_identities=6",
            "attackers=[condition_match]",
            "audit.utility=[]",
            "audit.n_bootstrap=100",
            f"output={folder}/out",
            f"cache_dir={folder}/cache",
        ],
    )
    settings["anonymizers"] = {"recording": recording(folder / "worker.json")}
    run_audit(build_audit(settings), settings_of(settings))


@pytest.fixture(scope="module")
def path(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The calls below ``run_audit`` up to each essential line."""
    folder = tmp_path_factory.mktemp("audit")
    seen: dict[str, list[str]] = {}
    submit, blocks = Stages.submit, EmbeddingScores.blocks

    def submitted(self: Stages, spec: StageSpec) -> StageHandle:
        if spec.name.startswith("anonymize-"):
            seen["driver"] = [*calls(), "submit"]
        return submit(self, spec)

    def written(*arguments: Any) -> None:
        seen["thread"] = calls()
        write_records(*arguments)

    def scored(self: EmbeddingScores) -> Iterator[ScoreBlock]:
        seen.setdefault("scores", [*calls(), "blocks"])
        return blocks(self)

    def rated(*arguments: Any) -> Any:
        stack = calls()
        if "attacks" in stack:
            seen["rank_1"] = stack
        return success_at_rank(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stages, "submit", submitted)
        patch.setattr(anonymize, "write_records", written)
        patch.setattr(EmbeddingScores, "blocks", scored)
        patch.setattr(identification, "success_at_rank", rated)
        audited(folder)
    worker = json.loads((folder / "worker.json").read_text(encoding="utf-8"))
    worker = worker[worker.index("__call__") :]  # below the table's writer, which asks for the rows
    whole = {
        "pipeline": [*seen["driver"], *seen["thread"], *worker],
        "scores": seen["scores"],
        "rank_1": seen["rank_1"],
    }
    yield SimpleNamespace(
        **{name: stack[stack.index("run_audit") + 1 :] for name, stack in whole.items()}
    )


@pytest.mark.slow
@pytest.mark.parametrize("line", MOST)
def test_the_way_stays_short(path: SimpleNamespace, line: str) -> None:
    way: list[str] = getattr(path, line)
    assert len(way) <= MOST[line], " -> ".join(way)
