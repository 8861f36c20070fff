"""The examples in docstrings hold: every module of cldmray that has one.

Modules that need an extra are left out where it is not installed.
"""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules() -> list[str]:
    """Dotted names of the modules whose text holds ``>>>``."""
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "cldmray").rglob("*.py"))
        if ">>> " in path.read_text(encoding="utf-8")
    ]


@pytest.mark.parametrize("name", modules())
def test_examples_hold(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("cldmray"):
            raise
        pytest.skip(f"needs {error.name}")
    outcome = doctest.testmod(module, optionflags=OPTIONS)
    assert outcome.attempted > 0 and outcome.failed == 0


def test_the_measures_have_examples() -> None:
    packages = [(*name.split("."), "")[1] for name in modules()]
    assert packages.count("metrics") >= 8
    assert {"evaluation", "results", "arrays", "errors"} <= set(packages)
