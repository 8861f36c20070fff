import platform
import subprocess
from pathlib import Path

import pytest

import cldmray
from cldmray.tracking.versions import built_commit, code_commit, git_commit, package_versions


def git(folder: Path, *arguments: str) -> None:
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *author, *arguments], cwd=folder, check=True, capture_output=True)


def test_versions_of_what_is_installed() -> None:
    versions = package_versions()
    assert versions["python"] == platform.python_version()
    assert versions["cldmray"] == cldmray.__version__
    assert {"mlflow", "numpy"} <= set(versions)
    assert "absent" not in versions


def test_commit_of_a_checkout(tmp_path: Path) -> None:
    assert git_commit(str(tmp_path)) is None
    (tmp_path / "__init__.py").write_text("")
    git(tmp_path, "init")
    assert git_commit(str(tmp_path)) is None
    git(tmp_path, "add", "__init__.py")
    assert git_commit(str(tmp_path)) is None
    git(tmp_path, "commit", "-m", "first")
    git(tmp_path, "tag", "v1")
    clean = git_commit(str(tmp_path))
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "__init__.py").write_text("changed")
    assert git_commit(str(tmp_path)) == f"{clean}-dirty"


def test_a_package_installed_inside_a_checkout_has_no_commit(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("")
    git(tmp_path, "init")
    git(tmp_path, "add", "other.py")
    git(tmp_path, "commit", "-m", "first")
    package = tmp_path / "venv" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    assert git_commit(str(package)) is None


def test_the_commit_that_a_wheel_was_built_from(tmp_path: Path) -> None:
    assert built_commit(str(tmp_path)) is None
    (tmp_path / "COMMIT").write_text("1f" * 20 + "\n")
    assert built_commit(str(tmp_path)) == "1f" * 20


def test_code_outside_of_a_checkout_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cldmray.tracking.versions.git_commit", lambda: None)
    monkeypatch.setattr("cldmray.tracking.versions.built_commit", lambda: None)
    assert code_commit() == "not a checkout"
