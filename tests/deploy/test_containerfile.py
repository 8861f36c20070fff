"""deploy/Containerfile is well-formed and agrees with the project's pins and extras."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def instructions():
    """Instructions of the container file, in order, with what follows them."""
    text = (ROOT / "deploy/Containerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [tuple(line.split(" ", 1)) for line in joined]


def arguments():
    pairs = [text.partition("=") for name, text in instructions() if name == "ARG"]
    return {name: value for name, _, value in pairs}


def test_the_container_file_has_only_instructions_that_builders_know():
    names = [name for name, _ in instructions()]
    assert set(names) <= {"ARG", "COPY", "ENV", "FROM", "RUN", "USER", "WORKDIR"}
    assert names.index("FROM") == 1
    assert dict(instructions())["FROM"] == "${RAY_IMAGE}"


def test_the_image_has_the_pinned_ray_and_extras_that_exist(pins):
    image = rf"rayproject/ray:{re.escape(pins['ray'])}-py311"
    assert re.fullmatch(rf"{image}-gpu", arguments()["RAY_IMAGE"])
    text = (ROOT / "deploy/Containerfile").read_text(encoding="utf-8")
    assert f"RAY_IMAGE=rayproject/ray:{pins['ray']}-py311 " in text
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11"
    listed = re.findall(r"EXTRAS=([\w,]+)", text)
    assert len(listed) == 2
    for extras in listed:
        assert set(extras.split(",")) <= set(project["optional-dependencies"])
        assert {"cpu", "gpu"} & set(extras.split(",")) in ({"cpu"}, {"gpu"})
    assert {"gpu", "controlnet"} <= set(arguments()["EXTRAS"].split(","))
    (install,) = [text for name, text in instructions() if "${EXTRAS}" in text]
    assert "-c constraints.txt" in install


def test_the_image_does_not_run_as_root():
    users = [text for name, text in instructions() if name == "USER"]
    assert users == ["1000:100"]
    names = [name for name, _ in instructions()]
    assert names.index("USER") < names.index("COPY")


def test_what_the_image_copies_is_there_and_is_sent_to_the_builder():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[1] == "*"
    sent = {line[1:] for line in ignored if line.startswith("!")}
    copied = [text.split()[1:-1] for name, text in instructions() if name == "COPY"]
    for path in (path for paths in copied for path in paths):
        assert (ROOT / path).exists()
        assert path.split("/")[0] in sent
    assert {path for paths in copied for path in paths if "/" not in path} == sent
