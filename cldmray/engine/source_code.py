"""Hash of the code that decides an artifact: no edited anonymizer finds yesterday's images.

The rule. The hash covers the modules of

- the classes and functions in the stage's settings, their base classes included,
- the functions and classes that the stage's ``produce`` names,

and the modules that these import, again and again, from cldmray or from the package that they are
in themselves. This holds for installed plugins, too, whose classes derive from cldmray's. Of the
other installed classes and functions in the settings (torch's, diffusers') the files count that
define them and their base classes, and the version of their package for what these import. Other
packages do not count, nor do cldmray's pipelines, whose order of things decides no artifact. Of a
module its statements count: comments, docstrings and layout may change.
What was typed into a notebook, or stands in ``__main__``, counts by its own source.
"""

import ast
import functools
import hashlib
import importlib.metadata
import inspect
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from cldmray import hashing

OWN = __name__.partition(".")[0]
NOT_FOLLOWED = (OWN, f"{OWN}.pipelines", f"{OWN}.config", f"{OWN}.cli")
"""Modules and packages that put things together and compute nothing themselves."""


def code_fingerprint(settings: Any, produce: Callable[..., Any] | None = None) -> str:
    """Fingerprint of the code that decides a stage's artifact: 16 hexadecimal characters.

    Args:
        settings: of the stage: dataclasses, functions, mappings and sequences of such.
        produce: what the stage calls.

    Example:
        >>> from cldmray.anonymizers.baselines import Blur, NoOp
        >>> code_fingerprint(Blur(sigma=2.0)) == code_fingerprint(Blur(sigma=3.0))
        True
        >>> code_fingerprint(Blur()) == code_fingerprint({"text": "blur"})
        False
    """
    roots = set(_definitions(settings))
    if produce is not None:
        roots |= set(_named(produce))
    loose = sorted(_own_source(root) for root in roots if not _module_file(root.__module__))
    own = {root.__module__ for root in roots if not _of_library(root)}
    followed = {name: module_hash(name) for name in _closure(own)}
    files = {root.__module__: _module_file(root.__module__) for root in roots}
    libraries = {
        name: [hashing.file_hash(file), _package_version(name.partition(".")[0])]
        for name, file in files.items()
        if file and name not in own
    }
    return hashing.fingerprint([loose, followed, libraries])


@functools.cache
def package_hash() -> str:
    """Hash of all modules of cldmray as they are, for what nearly all of them decide."""
    total = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        total.update(f"{path.relative_to(root).as_posix()}\n".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def module_hash(name: str) -> str:
    """Hash of a module's statements, without comments, docstrings and layout."""
    file = _module_file(name)
    return "" if file is None else _parsed(file)[0]


def _definitions(value: Any) -> Iterator[Any]:
    """The classes and functions in a stage's settings."""
    if isinstance(value, type):
        yield from (base for base in value.__mro__ if not _skipped(base.__module__))
    elif isinstance(value, functools.partial):
        yield from _definitions([value.func, value.args, value.keywords])
    elif isinstance(value, types.FunctionType):
        yield value
        yield from _definitions(getattr(value, "__wrapped__", ()))
    elif isinstance(value, types.MethodType):
        yield from _definitions([value.__func__, value.__self__])
    elif isinstance(value, Mapping):
        yield from (part for item in value.values() for part in _definitions(item))
    elif isinstance(value, list | tuple | set | frozenset):
        yield from (part for item in value for part in _definitions(item))
    else:
        yield from _definitions(type(value))
        if is_dataclass(value):
            for field in fields(value):
                yield from _definitions(getattr(value, field.name))


def _named(produce: Callable[..., Any]) -> Iterator[Any]:
    """The functions and classes that a function names, or that a partial calls."""
    while isinstance(produce, functools.partial):
        produce = produce.func
    function = inspect.unwrap(getattr(produce, "__func__", produce))
    if not isinstance(function, types.FunctionType):
        return
    if _counts(function):
        yield function
    names = set(_names(function.__code__))
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    values = {**function.__globals__, **{name: _content(cell) for name, cell in cells.items()}}
    for name in names | cells.keys():
        if isinstance(value := values.get(name), types.FunctionType | type) and _counts(value):
            yield value


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _counts(definition: Any) -> bool:
    """Whether a class or function is somebody's own, or cldmray's, and computes something."""
    module = getattr(definition, "__module__", None) or ""
    return not (_skipped(module) or _installed(module))


def _of_library(definition: Any) -> bool:
    """Whether it is installed and, as far as it tells, was not written for cldmray."""
    bases = getattr(definition, "__mro__", ())
    return _installed(definition.__module__) and not any(_own(base.__module__) for base in bases)


def _installed(module: str) -> bool:
    """Whether a module is one of an installed package other than cldmray."""
    file = _module_file(module)
    return file is not None and not hashing.INSTALLED.isdisjoint(file.parts) and not _own(module)


@functools.cache
def _package_version(top: str) -> str:
    """Versions of what installed a top package; searching for them takes long."""
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(top, [])
        return " ".join(sorted({f"{name} {importlib.metadata.version(name)}" for name in names}))


def _own(module: str) -> bool:
    return module.partition(".")[0] == OWN


def _skipped(module: str) -> bool:
    top = module.partition(".")[0]
    return (
        (top in sys.stdlib_module_names and module != "__main__")
        or module in NOT_FOLLOWED
        or module.startswith(tuple(f"{name}." for name in NOT_FOLLOWED[1:]))
    )


def _closure(names: set[str]) -> list[str]:
    """The modules, and what they import from cldmray and from their own package."""
    reached: set[str] = set()
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        file = _module_file(name)
        if name in reached or file is None:
            continue
        reached.add(name)
        tops = (OWN, name.partition(".")[0])
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        for level, module, members in _parsed(file)[1]:
            base = _absolute(level, module, package)
            inside = [f"{base}.{member}" for member in members]
            imported = [path for path in inside if _module_file(path)]
            if len(imported) < len(members) or not members:
                imported.append(base)
            waiting |= {
                path for path in imported if path.partition(".")[0] in tops and not _skipped(path)
            }
    return sorted(reached)


def _absolute(level: int, module: str, package: str) -> str:
    """Name of an imported module; ``level`` counts the dots of a relative import."""
    if not level:
        return module
    parts = package.split(".")
    parents = parts[: len(parts) - level + 1]
    return ".".join([*parents, *([module] if module else [])])


@functools.lru_cache(maxsize=4096)
def _file_in(root: str, tail: str) -> Path | None:
    path = Path(root, *tail.split(".")) if tail else Path(root)
    for file in (path.with_suffix(".py") if tail else path / "__init__.py", path / "__init__.py"):
        if file.is_file():
            return file
    return None


def _module_file(name: str) -> Path | None:
    """The source file of a module, found beside its top package, which has been imported."""
    top, _, tail = name.partition(".")
    module = sys.modules.get(top)
    if module is None or name == "__main__":
        return None
    if tail or getattr(module, "__path__", None):
        roots = list(getattr(module, "__path__", []))
        return next((file for root in roots if (file := _file_in(root, tail))), None)
    file = getattr(module, "__file__", None)
    return Path(file) if file and file.endswith(".py") else None


Import = tuple[int, str, tuple[str, ...]]
"""Dots of a relative import, the module, and the names that are taken out of it."""


def _parsed(file: Path) -> tuple[str, list[Import]]:
    status = file.stat()
    return _parse(file, status.st_size, status.st_mtime_ns)


_PARSING = threading.Lock()


@functools.lru_cache(maxsize=1024)
def _parse(file: Path, size: int, modified_ns: int) -> tuple[str, list[Import]]:
    """Hash of a file's statements, and its imports; size and time say when to read it anew."""
    # Python 3.11 may fail with a SystemError where two threads parse at once.
    with _PARSING:
        tree = ast.parse(file.read_bytes())
    imports = list(_imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [line for line in node.body if not _is_text(line)]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports


def _is_text(node: ast.stmt) -> bool:
    """Whether a statement is a docstring, of a module, class, function or constant."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _imports(tree: ast.AST) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", tuple(alias.name for alias in node.names)
        elif not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)):
            yield from _imports(node)


def _own_source(definition: Any) -> str:
    """Source of a class or function outside of files; its bytecode where there is none."""
    try:
        return inspect.getsource(getattr(definition, "__code__", definition))
    except (OSError, TypeError):
        pass
    if isinstance(definition, types.FunctionType):
        return _bytecode(definition.__code__)
    parts = [definition.__qualname__]
    for name, member in sorted(vars(definition).items()):
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        if isinstance(function, types.FunctionType):
            parts += [name, _own_source(function)]
        elif not name.startswith("__"):
            parts += [name, type(member).__name__]
    return "\n".join(parts)


def _bytecode(code: types.CodeType) -> str:
    constants = [
        _bytecode(constant) if isinstance(constant, types.CodeType) else repr(constant)
        for constant in code.co_consts
    ]
    return "\n".join([code.co_code.hex(), *code.co_names, *constants])
