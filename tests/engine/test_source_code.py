"""What of the code decides an artifact's key."""

import importlib
import linecache
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

from cldmray.anonymizers.baselines import Blur, NoOp
from cldmray.conditions.canny import Canny
from cldmray.engine import source_code
from cldmray.engine.cluster import EngineConfig
from cldmray.engine.map_stages.anonymize import anonymize
from cldmray.engine.source_code import code_fingerprint, module_hash

ANONYMIZER = '''"""Paints."""
from dataclasses import dataclass

from cldmray.anonymizers.base import Anonymizer
from outside.colours import colour

@dataclass(frozen=True)
class Paint(Anonymizer):
    """One colour."""

    @property
    def name(self):
        return "paint"

    def open(self):
        return lambda batch: batch.images * 0 + colour()
'''
COLOURS = "def colour():\n    return 3\n"


@pytest.fixture(params=["lib", "site-packages"])
def package(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., str]]:
    """Writes the package ``outside`` and gives its anonymizer's fingerprint."""
    monkeypatch.syspath_prepend(str(tmp_path / request.param))
    folder = tmp_path / request.param / "outside"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")

    def write(paint: str = ANONYMIZER, colours: str = COLOURS, **others: str) -> str:
        files = {"paint": paint, "colours": colours, **others}
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        module: ModuleType = importlib.import_module("outside.paint")
        return code_fingerprint({"anonymizer": module.Paint()})

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "outside"]:
        del sys.modules[name]


class TestPackage:
    def test_an_edited_body_counts(self, package: Callable[..., str]) -> None:
        assert package() != package(ANONYMIZER.replace("* 0", "* 1"))

    def test_what_it_imports_counts(self, package: Callable[..., str]) -> None:
        assert package() != package(colours=COLOURS.replace("3", "30"))

    def test_what_it_does_not_import_does_not(self, package: Callable[..., str]) -> None:
        assert package() == package(others="x = 1")

    def test_texts_and_layout_do_not_count(self, package: Callable[..., str]) -> None:
        edited = ANONYMIZER.replace('"""One colour."""', '"""Other words."""\n    # why').replace(
            '"paint"', "'paint'"
        )
        assert edited != ANONYMIZER
        assert package() == package(edited)


class TestLibraries:
    @pytest.fixture
    def library(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Callable[..., ModuleType]]:
        """Writes the installed package ``outside``, which has nothing to do with cldmray."""
        folder = tmp_path / "site-packages" / "outside"
        described = folder.with_name("outside-1.dist-info")
        described.mkdir(parents=True)
        folder.mkdir()
        monkeypatch.syspath_prepend(str(folder.parent))

        def write(size: int = 1, version: int = 1) -> ModuleType:
            source_code._package_version.cache_clear()
            (described / "METADATA").write_text(f"Name: outside\nVersion: {version}\n")
            text = f"import outside.much\n\ndef by():\n    return {size}\n\nclass Filter: ...\n"
            (folder / "__init__.py").write_text(text)
            (folder / "much.py").write_text("")
            importlib.invalidate_caches()
            return importlib.import_module("outside")

        yield write
        source_code._package_version.cache_clear()
        for name in [name for name in sys.modules if name.partition(".")[0] == "outside"]:
            del sys.modules[name]

    @pytest.mark.parametrize("name", ["Filter", "by"])
    def test_their_file_and_their_version_count(
        self, library: Callable[..., ModuleType], name: str
    ) -> None:
        fingerprints = [
            code_fingerprint({"part": getattr(library(*change), name)})
            for change in ((), (), (10,), (1, 2))
        ]
        assert fingerprints[0] == fingerprints[1]
        assert len(set(fingerprints)) == 3

    @pytest.mark.parametrize("part", [torch.nn.Linear(1, 1), torch.nn.functional.relu])
    def test_what_they_import_is_not_read(
        self, part: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unread(file: Path) -> None:
            raise AssertionError(f"{file} was read")

        monkeypatch.setattr(source_code, "_parsed", unread)
        assert code_fingerprint({"part": part}) != code_fingerprint({})


class TestCldmray:
    def test_report_and_pipelines_decide_nothing(self) -> None:
        modules = source_code._closure({"cldmray.engine.map_stages.anonymize", Blur.__module__})
        assert {"cldmray.anonymizers.baselines", "cldmray.engine.artifacts"} < set(modules)
        parts = {name.split(".")[1] for name in modules}
        assert not parts & {"report", "pipelines", "config", "cli", "tracking", "evaluation"}

    def test_what_produce_calls_counts(self) -> None:
        def produce(folder: str) -> None:
            anonymize(None, Blur(), {}, 0, EngineConfig(), folder)  # type: ignore[arg-type]

        fingerprints = {
            code_fingerprint(Blur(), step)
            for step in (None, produce, partial(anonymize, None), lambda folder: None)
        }
        assert len(fingerprints) == 3
        assert code_fingerprint(Blur(), produce) == code_fingerprint(Blur(sigma=9), produce)

    def test_kinds_differ(self) -> None:
        assert code_fingerprint(NoOp()) == code_fingerprint(Blur()), "they share a module"
        assert code_fingerprint(NoOp()) != code_fingerprint(Canny())
        assert len(module_hash("cldmray.conditions.canny")) == 64


def defined_in_a_notebook(source: str, name: str = "<cell 1>") -> type:
    """A class as IPython makes it: in a module without a file, its text in linecache."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    scope = {"__name__": "a_notebook"}
    exec(compile(source, name, "exec"), scope)
    return scope["Mine"]  # type: ignore[return-value]


def test_the_source_of_a_notebook_counts() -> None:
    text = "class Mine:\n    def run(self):\n        return {}\n"
    first, same, other = (
        code_fingerprint(defined_in_a_notebook(text.format(value), f"<cell {number}>")())
        for number, value in enumerate((1, 1, 2))
    )
    assert first == same != other


def test_the_source_of_a_script_counts(tmp_path: Path) -> None:
    def fingerprint(body: str) -> str:
        script = tmp_path / "script.py"
        script.write_text(
            "from cldmray.engine.source_code import code_fingerprint\n"
            f"class Mine:\n    def run(self):\n        return {body}\n"
            "print(code_fingerprint(Mine()))\n"
        )
        command = [sys.executable, str(script)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert fingerprint("1") != fingerprint("2")


def test_a_decorator_of_a_script_counts_beside_what_it_wraps(tmp_path: Path) -> None:
    def fingerprint(decorator: str, wrapped: str) -> str:
        script = tmp_path / "script.py"
        script.write_text(
            "import functools\n"
            "from cldmray.engine.source_code import code_fingerprint\n"
            "def changed(function):\n"
            "    @functools.wraps(function)\n"
            f"    def run(images):\n        return function(images) // {decorator}\n"
            "    return run\n"
            f"@changed\ndef mine(images):\n    return images + {wrapped}\n"
            "print(code_fingerprint(mine))\n"
        )
        command = [sys.executable, str(script)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert len({fingerprint(*numbers) for numbers in ("11", "21", "12")}) == 3
