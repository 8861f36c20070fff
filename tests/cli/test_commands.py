"""The command ``cldmray``: its verbs, their help and what they hand to Hydra."""

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cldmray.cli import commands, jobs, saved
from cldmray.cli.overrides import quoted
from cldmray.config.attribution import build_attribution
from cldmray.config.audit import build_audit
from cldmray.config.compose import compose
from cldmray.config.files import LISTED_GROUPS, conf_folder
from cldmray.config.reconstruction import build_reconstruction
from cldmray.errors import BadInputError, ConfigError
from cldmray.gallery.index import Matches
from cldmray.recognizers.base import Recognizer
from cldmray.recognizers.sface import SFace
from cldmray.report.figures import image_grid


@dataclass(frozen=True, kw_only=True)
class Thumbnails(Recognizer):
    """Compares the pixels themselves."""

    name = "thumbnails"
    dimension = 192
    side = 8

    def version(self) -> str:
        return "1"

    def embed_aligned(self, faces: np.ndarray) -> np.ndarray:
        return faces.reshape(len(faces), -1) - 127.5


BUILDS: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "audit": build_audit,
    "plan": build_audit,
    "anonymize": build_audit,
    "demo": build_audit,
    "attribute": build_attribution,
    "invert": build_reconstruction,
}
"""What checks the settings of a verb."""
VERBS = ("audit", "plan", "anonymize", "demo", "attribute", "invert", "report", "list", "search")
runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})


def test_every_verb_is_listed() -> None:
    outcome = runner.invoke(commands.app, ["--help"]).output
    assert all(f" {verb} " in outcome for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_three_commands_that_can_be_pasted(verb: str) -> None:
    outcome = runner.invoke(commands.app, [verb, "--help"])
    assert outcome.exit_code == 0
    _, _, examples = outcome.output.partition("Examples:")
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    assert len(lines) == 3
    assert all(line.startswith(f"cldmray {verb}") for line in lines)
    for line in lines:
        _, _, *arguments = shlex.split(line)
        if verb in BUILDS and "faces=DIR" not in arguments:
            base = "audit" if verb in ("plan", "anonymize") else verb
            if "--config-name" in arguments:
                _, base = arguments.pop(0), arguments.pop(0)
            BUILDS[verb](compose(base, quoted(arguments)))


def test_the_example_of_the_attribution_file_can_be_built() -> None:
    text = (conf_folder() / "attribute.yaml").read_text()
    example = text.partition("With fewer:\n")[2].partition("# Real faces")[0]
    build_attribution(compose("attribute", shlex.split(example.replace("#", ""))))


@pytest.mark.parametrize(
    ("line", "task", "base", "arguments"),
    [
        ("audit audit.seed=1 +x=2", jobs.audit, "audit", ["audit.seed=1", "+x=2"]),
        ("audit --cfg job", jobs.audit, "audit", ["--cfg", "job"]),
        ("audit --config-name lfw faces.root=D", jobs.audit, "lfw", ["faces.root=D"]),
        ("plan", jobs.audit, "audit", ["audit.dry_run=true"]),
        (
            "plan --config-name real faces=./D",
            jobs.audit,
            "real",
            ["faces=./D", "audit.dry_run=true"],
        ),
        (
            "plan --config-dir C faces=./D",
            jobs.audit,
            "audit",
            ["faces=./D", "audit.dry_run=true", "--config-dir", "C"],
        ),
        ("anonymize output=o", jobs.anonymize, "audit", ["output=o"]),
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
    outcome = runner.invoke(commands.app, ["list", kind])
    assert outcome.exit_code == 0
    assert len(outcome.output.splitlines()) >= 5
    assert all(len(line.split()) > 1 for line in outcome.output.splitlines()[1:])


def test_an_unknown_list() -> None:
    assert runner.invoke(commands.app, ["list", "people"]).exit_code == 1


def test_a_folder_without_an_audit(tmp_path: object) -> None:
    assert runner.invoke(commands.app, ["report", str(tmp_path)]).exit_code == 1


def test_a_gallery_is_built_and_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved, "recognizer_called", lambda name: Thumbnails())
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    for name, image in zip("abc", images, strict=True):
        (tmp_path / "faces" / name).mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "faces" / name / "1.png")
    for broken in ("broken.png", "torn.png"):
        (tmp_path / "faces" / "c" / broken).write_bytes(b"x")
    (tmp_path / "faces" / "c" / "empty.png").touch()
    line = ["search", str(tmp_path / "gallery"), str(tmp_path / "faces/b/1.png"), "--size", "16"]
    line += ["--align", "none"]
    first = runner.invoke(commands.app, [*line, "--build", str(tmp_path / "faces")])
    assert first.exit_code == 0, first.output
    assert "Gallery: 3 of 6 images; 2 not an image, 1 empty file\n" in first.output
    again = runner.invoke(commands.app, [*line, "--top", "2"])
    rows = [row.split()[-4:] for row in again.output.splitlines()[1:]]
    assert [row[0] for row in rows] == ["1", "2"]
    assert (rows[0][1], rows[0][3]) == ("b", "1.000")
    sheet = ["--top", "2", "--evidence", str(tmp_path / "sheet.png")]
    refused = runner.invoke(commands.app, [*line, *sheet])
    assert refused.exit_code == 1 and "give its faces (--faces)" in refused.output
    result = runner.invoke(commands.app, [*line, *sheet, "--faces", str(tmp_path / "faces")])
    assert result.exit_code == 0, result.output
    drawn = np.asarray(Image.open(tmp_path / "sheet.png"))
    width = drawn.shape[1] - image_grid.LABEL_WIDTH
    query, match, other = np.split(
        drawn[:, image_grid.LABEL_WIDTH :], [width // 3, 2 * width // 3], 1
    )
    assert (query == match).all() and (query != other).any()


def test_evidence_of_another_gallery(tmp_path: Path) -> None:
    for name in ("Ann", "Bob"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (16, 16)).save(tmp_path / name / "1.png")
    queries = np.zeros((1, 16, 16, 3), np.uint8)
    matches = Matches(np.array([["x"]]), np.array([["y"]]), np.ones((1, 1), np.float32))
    with pytest.raises(BadInputError, match="holds none of the images that match"):
        saved.write_evidence(str(tmp_path / "s.png"), queries, matches, str(tmp_path), "none")


def test_a_query_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"x")
    with pytest.raises(BadInputError, match=r"x.png: not an image"):
        saved.query_images([str(tmp_path / "x.png")], 16, "none")


def test_recognizers_by_name() -> None:
    assert saved.recognizer_called("sface") == SFace(align="landmarks")
    with pytest.raises(ConfigError, match="recognizer.path: must be given"):
        saved.recognizer_called("onnx")
