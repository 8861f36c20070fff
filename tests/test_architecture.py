"""The house rules: who may import whom, how packages are cut, what may be tracked.

``docs/architecture.md`` explains them.
"""

import ast
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "cldmray"
LAYERS = (
    "cli",
    "pipelines",
    "models",
    "config",
    "report",
    "tracking",
    "evaluation",
    "engine",
    "attackers",
    "anonymizers",
    "gallery",
    "recognizers",
    "conditions",
    "faces",
    "detection",
    "metrics",
    "results",
)
"""Packages from top to bottom: each imports only from itself and from those after it."""
HELPERS = ("arrays", "errors", "hashing", "settings", "storage")
"""Modules at the root, which every package may import."""
NARROW = {"metrics": {"arrays", "errors"}}
"""Packages that may import even less of cldmray than their place allows."""
FOREIGN = {"metrics": {"torch", "ray", "pyarrow", "mlflow"}}
"""Libraries that a package does without: the measures are functions on NumPy arrays."""
OWNERS = {"ray": f"{PACKAGE}/engine", "mlflow": f"{PACKAGE}/tracking"}
"""Libraries that one package alone imports."""
DATA = {"py.typed", "weights", "conf"}
"""What lies in the package and is no code."""

FEWEST_MODULES, MOST_MODULES = 4, 12
SIZE_EXCEPTIONS = {
    "detection": "YuNet, the alignment to five points and the finder of weight files are all of it",
}
"""Packages with fewer or more modules, and why."""

KINDS_OF = {
    "attackers": {"Attacker", "ReconstructionModel", "Reconstructor"},
    "anonymizers": {"Anonymizer"},
}
"""Base classes by their package. A subclass is asked, never told apart from outside."""

MAX_LINES = 600
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


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything that the file imports, wherever in the file."""
    package = path.relative_to(root).with_suffix("").parts[:-1]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def allowed_for(part: str) -> set[str]:
    """Packages and root modules that a part of cldmray may import."""
    if part in NARROW:
        return NARROW[part] | {part}
    if part in HELPERS:
        return set(HELPERS)
    return {*HELPERS, *LAYERS[LAYERS.index(part) :]}


def layer_violations(root: Path) -> list[str]:
    """Imports that run up the list of packages."""
    violations = []
    for path in sources(root, PACKAGE):
        part = path.relative_to(root / PACKAGE).with_suffix("").parts[0]
        if part not in (*LAYERS, *HELPERS):
            continue
        for line, name in imported(path, root):
            parts = name.split(".")
            outside = {*LAYERS, *HELPERS} - allowed_for(part)
            if parts[0] == PACKAGE and len(parts) > 1 and parts[1] in outside:
                violations.append(
                    f"{path.relative_to(root)}:{line} imports {PACKAGE}.{parts[1]}; {part} may "
                    f"import only {', '.join(sorted(allowed_for(part) - {part})) or 'nothing'}"
                )
    return violations


def library_violations(root: Path) -> list[str]:
    """Imports of libraries that belong to one package, or that a package does without."""
    violations = []
    for path in sources(root, PACKAGE, "jobs"):
        name = path.relative_to(root).as_posix()
        part = name.split("/")[1]
        for line, module in imported(path, root):
            library = module.split(".")[0]
            owner = OWNERS.get(library)
            if owner is not None and not name.startswith(f"{owner}/"):
                violations.append(f"{name}:{line} imports {module}; only {owner} may")
            elif library in FOREIGN.get(part, ()):
                violations.append(f"{name}:{line} imports {module}; {part} does without {library}")
    return violations


def import_graph(root: Path) -> dict[str, set[str]]:
    """Modules of the package, each with those that it imports; the root's lazy API left out."""
    names = {}
    for path in sources(root, PACKAGE):
        parts = path.relative_to(root).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph: dict[str, set[str]] = {name: set() for name in names}
    for name, path in names.items():
        if name == PACKAGE:
            continue
        for _, target in imported(path, root):
            while target and target not in names:
                target = target.rpartition(".")[0]
            if target not in ("", PACKAGE, name):
                graph[name].add(target)
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one module (Tarjan 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    components = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for target in sorted(graph[module]):
            if target not in number:
                visit(target)
                lowest[module] = min(lowest[module], lowest[target])
            elif target in stack:
                lowest[module] = min(lowest[module], number[target])
        if lowest[module] == number[module]:
            place = stack.index(module)
            component = stack[place:]
            del stack[place:]
            if len(component) > 1:
                components.append(sorted(component))

    for module in sorted(graph):
        if module not in number:
            visit(module)
    return sorted(components)


def circle_violations(root: Path) -> list[str]:
    """Modules that import each other, be it within functions."""
    return [f"circle of imports: {', '.join(names)}" for names in circles(import_graph(root))]


def root_violations(root: Path) -> list[str]:
    """What lies at the package's root without being named in ``LAYERS`` or ``HELPERS``."""
    expected = {"__init__.py", *LAYERS, *(f"{name}.py" for name in HELPERS), *DATA, "__pycache__"}
    return [
        f"{PACKAGE}/{path.name} has no place: put it into a package of LAYERS"
        for path in sorted((root / PACKAGE).iterdir())
        if path.name not in expected
    ]


def package_violations(root: Path) -> list[str]:
    """Packages that are too small or too large, or do not say what they are."""
    violations = []
    for init in sorted((root / PACKAGE).rglob("__init__.py")):
        name = init.parent.relative_to(root / PACKAGE).as_posix()
        if ast.get_docstring(parsed(init)) is None:
            violations.append(f"{PACKAGE}/{name}/__init__.py has no docstring: say what it is")
        modules = len(list(init.parent.glob("*.py"))) - 1
        if name == "." or name in SIZE_EXCEPTIONS:
            continue
        if not FEWEST_MODULES <= modules <= MOST_MODULES:
            violations.append(
                f"{PACKAGE}/{name} has {modules} modules; {FEWEST_MODULES} to {MOST_MODULES} are "
                "right: merge splinters, or cut it by what it does"
            )
    return violations


def kinds(root: Path) -> dict[str, str]:
    """Subclasses of the bases in ``KINDS_OF``, each with its package."""
    bases: dict[str, set[str]] = {}
    homes: dict[str, str] = {}
    for package in KINDS_OF:
        for path in sources(root / PACKAGE, package):
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.ClassDef):
                    bases[node.name] = {last_name(base) for base in node.bases}
                    homes[node.name] = package
    roots = set().union(*KINDS_OF.values())

    def descends(name: str) -> bool:
        return any(base in roots or descends(base) for base in bases.get(name, ()))

    return {name: home for name, home in homes.items() if name not in roots and descends(name)}


def last_name(node: ast.expr) -> str:
    """Name at the end of an expression: ``Diffusion`` of ``settings.Diffusion``."""
    if isinstance(node, ast.Subscript):
        return last_name(node.value)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def checked_types(node: ast.AST) -> Iterator[ast.expr]:
    """Expressions of the classes that a node tests an object for."""
    if isinstance(node, ast.Call) and last_name(node.func) in ("isinstance", "issubclass"):
        yield from (part for part in ast.walk(node.args[1]) if isinstance(part, ast.expr))
    elif isinstance(node, ast.MatchClass):
        yield node.cls


def kind_violations(root: Path) -> list[str]:
    """Tests for a kind of attacker, anonymizer or reconstruction model outside its package."""
    home = kinds(root)
    violations = set()
    for path in sources(root, PACKAGE, "jobs"):
        name = path.relative_to(root).as_posix()
        part = name.split("/")[1]
        for node in ast.walk(parsed(path)):
            for expression in checked_types(node):
                kind = last_name(expression)
                if home.get(kind, part) != part:
                    violations.add(
                        f"{name}:{expression.lineno} tests for {kind}: ask the object instead"
                    )
    return sorted(violations)


def long_modules(root: Path) -> list[str]:
    lengths = {
        path: len(path.read_text(encoding="utf-8").splitlines())
        for path in sources(root, PACKAGE, "jobs", "benchmarks")
    }
    return [
        f"{path.relative_to(root)} has {lines} lines; at most {MAX_LINES}: is it one thing?"
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
    violations = []
    for path in tracked(root):
        name = path.relative_to(root)
        size = path.stat().st_size
        if size > MAX_BYTES and path.suffix != ".safetensors":
            violations.append(f"{name} has {size / 2**20:.1f} MiB; at most 2, but for safetensors")
        with path.open("rb") as file:
            head = file.read(2)
        if path.suffix in PICKLES or head in PICKLE_HEADS:
            violations.append(f"{name} is a pickle, which runs code when read: store safetensors")
    return violations


@pytest.mark.parametrize(
    "rule",
    [
        layer_violations,
        library_violations,
        circle_violations,
        root_violations,
        package_violations,
        kind_violations,
        long_modules,
        file_violations,
    ],
)
def test_the_project_keeps_the_rule(rule: Callable[[Path], list[str]]) -> None:
    violations = rule(ROOT)
    assert not violations, "\n" + "\n".join(violations)


def test_the_base_classes_are_there() -> None:
    for package, names in KINDS_OF.items():
        nodes = (
            node for path in sources(ROOT / PACKAGE, package) for node in ast.walk(parsed(path))
        )
        assert names <= {node.name for node in nodes if isinstance(node, ast.ClassDef)}


def put(root: Path, **files: str) -> Path:
    """Write modules whose names have ``__`` for a slash."""
    for name, content in files.items():
        folder, _, module = name.removesuffix("__init__").rpartition("__")
        path = root / folder.replace("__", "/") / f"{module or '__init__'}.py"
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
def test_an_import_up_the_list_is_found(tmp_path: Path, line: str) -> None:
    put(tmp_path, cldmray__faces__source=line)
    (violation,) = layer_violations(tmp_path)
    assert violation.startswith("cldmray/faces/source.py:")
    assert violation.endswith(
        "faces may import only arrays, detection, errors, hashing, metrics, results, settings, "
        "storage"
    )


@pytest.mark.parametrize(
    "line",
    [
        "from cldmray.faces import source",
        "from cldmray import __version__, errors",
        "from . import other",
        "import galleryx, cldmrayx.report",
    ],
)
def test_an_import_down_the_list_is_none_of_them(tmp_path: Path, line: str) -> None:
    put(tmp_path, cldmray__pipelines__audit="import cldmray.report.html")
    put(tmp_path, cldmray__gallery__index=line)
    put(tmp_path, **{"cldmray____init__": "def audit():\n    import cldmray.pipelines.audit"})
    assert layer_violations(tmp_path) == []


def test_root_helpers_import_each_other_only(tmp_path: Path) -> None:
    put(tmp_path, cldmray__storage="from cldmray.errors import X\nimport cldmray.faces.base")
    (violation,) = layer_violations(tmp_path)
    assert violation.startswith("cldmray/storage.py:2 imports cldmray.faces")


def test_metrics_know_arrays_and_errors_only(tmp_path: Path) -> None:
    put(tmp_path, cldmray__metrics__a="from cldmray.errors import X\nimport cldmray.results.table")
    (violation,) = layer_violations(tmp_path)
    assert violation.endswith(":2 imports cldmray.results; metrics may import only arrays, errors")
    put(tmp_path, cldmray__metrics__b="import torch\nimport numpy")
    (violation,) = library_violations(tmp_path)
    assert violation == "cldmray/metrics/b.py:1 imports torch; metrics does without torch"


def test_ray_and_mlflow_have_one_owner_each(tmp_path: Path) -> None:
    put(tmp_path, cldmray__engine__a="import ray.data", jobs__a="import ray\nimport rayon")
    put(tmp_path, cldmray__tracking__a="import mlflow")
    put(tmp_path, cldmray__models__a="def f():\n    from ray import data")
    put(tmp_path, jobs__b="def f():\n    import mlflow.tracking")
    assert library_violations(tmp_path) == [
        "cldmray/models/a.py:2 imports ray.data; only cldmray/engine may",
        "jobs/a.py:1 imports ray; only cldmray/engine may",
        "jobs/b.py:2 imports mlflow.tracking; only cldmray/tracking may",
    ]


def test_circles_are_found_also_through_late_imports(tmp_path: Path) -> None:
    put(tmp_path, cldmray__faces__a="from cldmray.faces import b")
    put(tmp_path, cldmray__faces__b="def f():\n    from cldmray.faces.c import x")
    put(tmp_path, cldmray__faces__c="from cldmray.faces.a import y")
    put(tmp_path, cldmray__faces__d="import cldmray.faces.a")
    (violation,) = circle_violations(tmp_path)
    names = "cldmray.faces.a, cldmray.faces.b, cldmray.faces.c"
    assert violation == f"circle of imports: {names}"


def test_a_package_that_collects_its_modules_is_no_circle(tmp_path: Path) -> None:
    init = {"cldmray__faces____init__": "from cldmray.faces.a import x"}
    put(tmp_path, cldmray__faces__a="from cldmray.faces.b import y", cldmray__faces__b="", **init)
    assert circle_violations(tmp_path) == []


def test_a_module_at_the_root_needs_a_place(tmp_path: Path) -> None:
    put(tmp_path, cldmray__helpers="", cldmray__errors="", cldmray__faces__a="")
    (violation,) = root_violations(tmp_path)
    assert violation.startswith("cldmray/helpers.py has no place")


def test_packages_of_the_wrong_size_or_without_words_are_found(tmp_path: Path) -> None:
    for name, count in (("faces", 13), ("gallery", 4), ("report", 3)):
        put(tmp_path, **{f"cldmray__{name}____init__": '"""What it is."""'})
        put(tmp_path, **{f"cldmray__{name}__m{number}": "" for number in range(count)})
    put(tmp_path, **{"cldmray__gallery____init__": ""})
    assert [violation.split(":")[0] for violation in package_violations(tmp_path)] == [
        "cldmray/faces has 13 modules; 4 to 12 are right",
        "cldmray/gallery/__init__.py has no docstring",
        "cldmray/report has 3 modules; 4 to 12 are right",
    ]


def test_kinds_are_not_told_apart_outside_of_their_package(tmp_path: Path) -> None:
    put(tmp_path, cldmray__attackers__base="class Attacker: ...\nclass Trained(Attacker): ...")
    put(tmp_path, cldmray__attackers__mine="class Mine(base.Trained): ...\nclass Other: ...")
    put(tmp_path, cldmray__attackers__use="isinstance(x, Mine)")
    put(
        tmp_path,
        cldmray__pipelines__a="isinstance(x, Attacker)\nisinstance(x, int | attackers.Mine)\n"
        "isinstance(x, (Other, Trained))\nmatch x:\n    case Mine(): ...",
    )
    assert kind_violations(tmp_path) == [
        "cldmray/pipelines/a.py:2 tests for Mine: ask the object instead",
        "cldmray/pipelines/a.py:3 tests for Trained: ask the object instead",
        "cldmray/pipelines/a.py:5 tests for Mine: ask the object instead",
    ]


def test_large_files_pickles_and_long_modules_are_found(tmp_path: Path) -> None:
    put(tmp_path, cldmray__long="x = 1\n" * (MAX_LINES + 1), cldmray__fine="x = 1\n" * MAX_LINES)
    (tmp_path / "big.png").write_bytes(b"1" * (MAX_BYTES + 1))
    (tmp_path / "big.safetensors").write_bytes(b"1" * (MAX_BYTES + 1))
    (tmp_path / "weights.pth").write_bytes(b"PK")
    (tmp_path / "disguised.dat").write_bytes(b"\x80\x04more")
    (tmp_path / "empty.dat").write_bytes(b"\x80")
    assert [line.split()[0] for line in long_modules(tmp_path)] == ["cldmray/long.py"]
    names = {line.split()[0] for line in file_violations(tmp_path)}
    assert names == {"big.png", "weights.pth", "disguised.dat"}
