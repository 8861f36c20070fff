"""The house rules: who may import whom, how long a module may grow, what may be tracked."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "cldmray"
LAYERS = (
    "faces",
    "conditions",
    "anonymizers",
    "attackers",
    "gallery",
    "metrics",
    "engine",
    "tracking",
    "report",
)
COMMON = ("errors", "hashing", "storage", "torch_layout")
ALLOWED = {
    **{name: {*COMMON, *LAYERS[:place], name} for place, name in enumerate(LAYERS)},
    **{name: set(COMMON) for name in COMMON},
    "metrics": {"errors", "metrics"},
}
OWNERS = {"ray": ("cldmray/engine", "jobs"), "mlflow": ("cldmray/tracking",)}
MAX_LINES = 300
MAX_BYTES = 2 * 2**20
PICKLES = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")
PICKLE_HEADS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
UNTRACKED = {
    ".git",
    ".venv",
    ".hypothesis",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    "__pycache__",
    "runs",
}


def sources(root: Path, *folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (root / folder).rglob("*.py"))


def imported(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything that the file imports, wherever in the file."""
    package = path.relative_to(root).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def layer_violations(root: Path) -> list[str]:
    """Imports that run up the list of packages."""
    modules = {path.stem for path in (root / PACKAGE).iterdir()}
    found = []
    for path in sources(root, PACKAGE):
        here = path.relative_to(root / PACKAGE).with_suffix("").parts[0]
        for line, name in imported(path, root):
            parts = name.split(".")
            if parts[0] != PACKAGE or len(parts) < 2 or parts[1] not in modules:
                continue
            if here in ALLOWED and parts[1] not in ALLOWED[here]:
                found.append(
                    f"{path.relative_to(root)}:{line} imports {PACKAGE}.{parts[1]}; {here} may "
                    f"import only {', '.join(sorted(ALLOWED[here] - {here})) or 'nothing'}"
                )
    return found


def owner_violations(root: Path) -> list[str]:
    """Imports of Ray and MLflow outside of the one place each that deals with it."""
    found = []
    for path in sources(root, PACKAGE, "jobs"):
        where = path.relative_to(root).as_posix()
        for line, name in imported(path, root):
            owners = OWNERS.get(name.split(".")[0], ())
            if owners and not where.startswith(tuple(f"{owner}/" for owner in owners)):
                found.append(f"{where}:{line} imports {name}; only {' and '.join(owners)} may")
    return found


def long_modules(root: Path) -> list[str]:
    lengths = {
        path: len(path.read_text(encoding="utf-8").splitlines())
        for path in sources(root, PACKAGE, "jobs", "benchmarks")
    }
    return [
        f"{path.relative_to(root)} has {lines} lines; at most {MAX_LINES}: split it by what it does"
        for path, lines in lengths.items()
        if lines > MAX_LINES
    ]


def tracked(root: Path) -> list[Path]:
    """Files that git tracks or would track; without git, all but caches and environments."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            capture_output=True,
            check=True,
        ).stdout.decode("utf-8", "surrogateescape")
        paths = [root / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [path for path in root.rglob("*") if not UNTRACKED & set(path.parts)]
    return sorted(path for path in paths if path.is_file())


def file_violations(root: Path) -> list[str]:
    found = []
    for path in tracked(root):
        name = path.relative_to(root)
        size = path.stat().st_size
        if size > MAX_BYTES and path.suffix != ".safetensors":
            found.append(f"{name} has {size / 2**20:.1f} MiB; at most 2, but for safetensors")
        with path.open("rb") as file:
            head = file.read(2)
        if path.suffix in PICKLES or head in PICKLE_HEADS:
            found.append(f"{name} is a pickle, which runs code when read: store safetensors")
    return found


@pytest.mark.parametrize(
    "check", [layer_violations, owner_violations, long_modules, file_violations]
)
def test_the_project_keeps_the_rule(check):
    found = check(ROOT)
    assert not found, "\n" + "\n".join(found)


def test_every_package_has_its_place():
    packages = {path.parent.name for path in (ROOT / PACKAGE).glob("*/__init__.py")}
    unknown = packages - set(LAYERS)
    assert not unknown, f"new packages {sorted(unknown)}: give them a place in LAYERS"


def put(root, **files):
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path = path.with_suffix(".py") if not path.suffix else path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    "line",
    [
        "import cldmray.gallery.index",
        "from cldmray.gallery import index",
        "from cldmray import errors, gallery",
        "from ..gallery import index",
        "from .. import gallery",
        "if TYPE_CHECKING:\n    from cldmray.gallery import index",
        "def late():\n    from cldmray.gallery import index",
        "import cldmray.pipelines.audit",
    ],
)
def test_an_import_up_the_list_is_found(tmp_path, line):
    put(tmp_path, cldmray__gallery__index="", cldmray__errors="", cldmray__audit="")
    put(tmp_path, cldmray__faces__source=line)
    (found,) = layer_violations(tmp_path)
    assert found.startswith("cldmray/faces/source.py:")
    assert found.endswith("faces may import only errors, hashing, storage, torch_layout")


@pytest.mark.parametrize(
    "line",
    [
        "from cldmray.faces import source",
        "from cldmray import __version__, errors",
        "from . import other",
        "import galleryx, cldmrayx.report",
    ],
)
def test_an_import_down_the_list_is_none_of_them(tmp_path, line):
    put(tmp_path, cldmray__faces__source="", cldmray__report__html="", cldmray__errors="")
    put(tmp_path, cldmray__audit="import cldmray.report.html", cldmray__gallery__index=line)
    assert layer_violations(tmp_path) == []


def test_metrics_know_errors_only(tmp_path):
    put(tmp_path, cldmray__faces__source="", cldmray__errors="")
    put(tmp_path, cldmray__metrics__a="from cldmray.errors import X\nimport cldmray.faces.base")
    (found,) = layer_violations(tmp_path)
    assert found.endswith(":2 imports cldmray.faces; metrics may import only errors")


def test_ray_and_mlflow_have_one_owner_each(tmp_path):
    put(tmp_path, cldmray__engine__a="import ray.data", jobs__a="import ray\nimport rayon")
    put(tmp_path, cldmray__tracking__a="import mlflow", cldmray__audit="from ray import data")
    put(tmp_path, jobs__b="def f():\n    import mlflow.tracking")
    assert owner_violations(tmp_path) == [
        "cldmray/audit.py:1 imports ray.data; only cldmray/engine and jobs may",
        "jobs/b.py:2 imports mlflow.tracking; only cldmray/tracking may",
    ]


def test_large_files_pickles_and_long_modules_are_found(tmp_path):
    put(tmp_path, cldmray__long="x = 1\n" * 301, cldmray__fine="x = 1\n" * 300)
    (tmp_path / "big.png").write_bytes(b"1" * (MAX_BYTES + 1))
    (tmp_path / "big.safetensors").write_bytes(b"1" * (MAX_BYTES + 1))
    (tmp_path / "weights.pth").write_bytes(b"PK")
    (tmp_path / "disguised.dat").write_bytes(b"\x80\x04more")
    (tmp_path / "empty.dat").write_bytes(b"\x80")
    assert [line.split()[0] for line in long_modules(tmp_path)] == ["cldmray/long.py"]
    found = {line.split()[0] for line in file_violations(tmp_path)}
    assert found == {"big.png", "weights.pth", "disguised.dat"}
