"""The documentation site: it builds without a warning, and every link in it leads somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
LINK = re.compile(r'(?:href|src)="([^"#?]+)(?:[?][^"#]*)?(?:#([^"]*))?"')


@pytest.mark.slow
def test_the_site_builds_and_its_links_hold(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-q", "-d", tmp_path / "trees", ROOT / "docs",
         tmp_path / "site"],
        check=True, timeout=600,
    )  # fmt: skip
    pages = {page.resolve(): page.read_text("utf-8") for page in tmp_path.glob("site/**/*.html")}
    names = {page.relative_to(tmp_path / "site").as_posix() for page in pages}
    assert {"index.html", "measures.html", "api.html", "project/contributing.html"} <= names
    broken = [
        f"{page.name}: {target}"
        for page, text in pages.items()
        for target, anchor in LINK.findall(text)
        if not re.match(r"[a-z]+:", target)
        and not _leads_somewhere((page.parent / target).resolve(), anchor, pages)
    ]
    assert broken == []
    assert "cldmray.audit" in pages[tmp_path.resolve() / "site" / "api.html"]


def _leads_somewhere(target: Path, anchor: str, pages: dict[Path, str]) -> bool:
    return target.exists() and (not anchor or f'id="{anchor}"' in pages.get(target, ""))


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_tutorial_prints_what_it_shows(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "bin" / "cldmray"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom cldmray.cli import main\n\nmain()\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COLUMNS", "100")
    notebook = nbformat.read(path, as_version=4)
    printed = _printed(notebook)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources=resources
    ).execute()
    assert printed == _printed(notebook) and any(printed)


def _printed(notebook: nbformat.NotebookNode) -> list[str]:
    """What each cell of a notebook printed, without what went to stderr; it comes in pieces."""
    outputs = [cell.get("outputs", []) for cell in notebook.cells]
    return ["".join(part.text for part in cell if part.get("name") == "stdout") for cell in outputs]
