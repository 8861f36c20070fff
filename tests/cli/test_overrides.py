"""Values with signs of Hydra's grammar, sweeps whose jobs fail, output that nobody reads."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from cldmray.cli.overrides import quoted

ODD = ["~/faces", "a=b", "c,d", "[e]", "2020_01", "{x", "it's", "back\\", "a\\'b", "a b#c", "日本"]

JOB = """
import sys
from cldmray.cli.runtime import run_job
from cldmray.errors import BadInputError
def job(composed):
    seed = composed.audit.seed
    for line in range({lines}):
        print("line", line)
    print("ran", seed, composed.output, file=sys.stderr)
    if seed == 1:
        raise BadInputError("seed 1")
    return 3 if seed == 3 else 0
run_job(job, "audit")
"""


def value_of(override: str) -> object:
    return OverridesParser.create().parse_override(override).value()


@pytest.mark.parametrize("value", ODD)
def test_paths_are_taken_as_they_are_typed(value: str) -> None:
    for key in ("faces.root", "output", "splits.evaluation", "faces@gallery.faces.root"):
        (override,) = quoted([f"{key}={value}"])
        assert value_of(override) == value


def test_what_hydra_takes_stays() -> None:
    kept = ["anonymizers=[blur,k_same]", "audit.fail_on=leak", "-m", "~audit.seed", "+a.b={c: 1}"]
    kept += ["faces.root=null", "output=${oc.env:HOME}/x", "faces.root='a,b'", "audit.seed=1,2"]
    assert quoted(kept) == kept
    assert quoted(["audit.fail_on=k<20"]) == ["audit.fail_on='k<20'"]
    assert quoted(["-m", "faces.root=a,b"]) == ["-m", "faces.root=a,b"]


def run(tmp_path: Path, *arguments: str, lines: int = 0) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", JOB.format(lines=lines), *arguments]
    return subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_a_sweep_runs_every_job_and_ends_with_the_worst_status(tmp_path: Path) -> None:
    result = run(tmp_path, "-m", "audit.seed=3,0,2")
    jobs = [line.split() for line in result.stderr.splitlines()]
    assert [seed for _, seed, _ in jobs] == ["3", "0", "2"]
    assert len({output for _, _, output in jobs}) == 3
    assert result.returncode == 3
    result = run(tmp_path, "-m", "audit.seed=3,1,2")
    assert "BadInputError: seed 1" in result.stderr and "ran 2" in result.stderr
    assert result.returncode == 1


@pytest.mark.slow
def test_a_reader_that_ends_does_not_end_the_job(tmp_path: Path) -> None:
    program = [sys.executable, "-c", JOB.format(lines=100_000), "audit.seed=3"]
    job = subprocess.Popen(
        program, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert job.stdout is not None and job.stderr is not None
    assert job.stdout.readline() == "line 0\n"
    job.stdout.close()
    assert job.stderr.read().startswith("ran 3 ")
    assert job.wait(timeout=120) == 3
