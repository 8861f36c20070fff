"""The command ``cldmray``: its verbs, their help and what they hand to Hydra."""

import sys

import pytest
from typer.testing import CliRunner

from cldmray.cli import commands, jobs
from cldmray.config.files import LISTED_GROUPS

VERBS = ("audit", "plan", "demo", "attribute", "invert", "report", "list")
runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})


def test_every_verb_is_listed() -> None:
    shown = runner.invoke(commands.app, ["--help"]).output
    assert all(f" {verb} " in shown for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_three_commands_that_can_be_pasted(verb: str) -> None:
    shown = runner.invoke(commands.app, [verb, "--help"])
    assert shown.exit_code == 0
    _, _, examples = shown.output.partition("Examples:")
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    assert len(lines) == 3
    assert all(line.startswith(f"cldmray {verb}") for line in lines)


@pytest.mark.parametrize(
    ("line", "task", "base", "arguments"),
    [
        ("audit audit.seed=1 +x=2", jobs.audit, "audit", ["audit.seed=1", "+x=2"]),
        ("audit --cfg job", jobs.audit, "audit", ["--cfg", "job"]),
        ("audit --config-name lfw faces.root=D", jobs.audit, "lfw", ["faces.root=D"]),
        ("plan", jobs.audit, "audit", ["audit.dry_run=true"]),
        ("demo output=o", jobs.audit, "demo", ["output=o"]),
        ("attribute", jobs.attribute, "attribute", []),
        ("invert --config-dir C ~x", jobs.invert, "invert", ["~x", "--config-dir", "C"]),
    ],
)
def test_what_hydra_gets(
    monkeypatch: pytest.MonkeyPatch, line: str, task: object, base: str, arguments: list[str]
) -> None:
    calls: list[tuple[object, str, list[str]]] = []
    monkeypatch.setattr(sys, "argv", ["cldmray"])
    monkeypatch.setattr(
        commands, "run_job", lambda task, base: calls.append((task, base, sys.argv[1:]))
    )
    assert runner.invoke(commands.app, line.split()).exit_code == 0
    assert calls == [(task, base, arguments)]


@pytest.mark.parametrize("kind", list(LISTED_GROUPS))
def test_lists_have_a_line_for_each_option(kind: str) -> None:
    shown = runner.invoke(commands.app, ["list", kind])
    assert shown.exit_code == 0
    assert len(shown.output.splitlines()) >= 5
    assert all(len(line.split()) > 1 for line in shown.output.splitlines()[1:])


def test_an_unknown_list() -> None:
    assert runner.invoke(commands.app, ["list", "people"]).exit_code == 1


def test_a_folder_without_an_audit(tmp_path: object) -> None:
    assert runner.invoke(commands.app, ["report", str(tmp_path)]).exit_code == 1
