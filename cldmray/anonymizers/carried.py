"""What a function depends on, as far as it tells by itself: its source and what it carries."""

import copyreg
import functools
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import Any

import numpy as np

from cldmray.hashing import INSTALLED, array_content, digest

SCALARS = frozenset(
    {type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented)}
)
"""Types whose text tells all of a value."""
PICKLE_PROTOCOL = 2


class Content:
    """Describes values by what they hold; each is looked at once, however often it is held.

    Functions count by their source, defaults, enclosed values and attributes, classes by their
    source and their bases', modules, loggers and classes of installed packages by their names,
    other objects by what pickle would keep of them. Of those that cannot be pickled the class and
    the attributes count.

    >>> shared = [1, 2]
    >>> Content().of([shared, shared]) == Content().of([[1, 2], [1, 2]])
    True
    >>> Content().of(range(3)) == Content().of(range(4))
    False
    """

    def __init__(self) -> None:
        self._described: dict[int, tuple[object, str]] = {}
        self._depth = 0

    def of(self, value: object) -> str:
        """Text that differs where values do, and is the same in every process.

        Raises:
            RecursionError: values are nested too deeply.
        """
        if type(value) in SCALARS:
            return f"{type(value).__name__} {value!r}"
        if id(value) not in self._described:
            # The object is kept, so that no later one gets its id.
            self._described[id(value)] = value, f"itself, at depth {self._depth}"
            self._depth += 1
            description = digest(*self._parts(value))
            self._depth -= 1
            self._described[id(value)] = value, description
        return self._described[id(value)][1]

    def _parts(self, value: Any) -> Iterator[str]:
        kind = type(value)
        yield f"{kind.__module__}.{kind.__qualname__}"
        if isinstance(value, set | frozenset):
            yield from sorted(map(self.of, value))
            return
        is_array = kind is np.ndarray or hasattr(value, "detach")
        content = array_content(value) if is_array else None
        yield from map(self.of, _held(value) if content is None else content.values())


def _held(value: Any) -> Iterator[object]:
    """The values that a value is made of; scalars, arrays and sets are none that it asks about."""
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        yield from value
    elif type(value) is dict or isinstance(value, MappingProxyType):
        yield from (part for item in value.items() for part in item)
    elif isinstance(value, MethodType):
        yield from (value.__func__, value.__self__)
    elif isinstance(value, FunctionType):
        yield from (value.__code__, value.__defaults__, value.__kwdefaults__, vars(value))
        yield from _enclosed(value)
    elif isinstance(value, CodeType):
        source = source_of(value)
        yield from (value.co_code, value.co_names, value.co_consts) if source is None else [source]
    elif isinstance(value, type):
        yield from _of_class(value)
    elif isinstance(value, ModuleType):
        yield value.__name__
    elif isinstance(value, BuiltinFunctionType):
        yield from (value.__module__, value.__qualname__)
        yield value.__self__
    else:
        yield type(value)
        yield from _pickled(value)


def source_of(code: CodeType) -> str | None:
    """Source of a function, whatever it wraps; None where there is none."""
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):
        return None


@functools.lru_cache(maxsize=1024)
def _class_source(definition: type) -> str | None:
    """Source of a class; None where there is none, empty for one of an installed package."""
    module = str(definition.__module__)
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    is_standard = module.partition(".")[0] in sys.stdlib_module_names and module != "__main__"
    if is_standard or not INSTALLED.isdisjoint(Path(file).parts):
        return ""
    try:
        return inspect.getsource(definition)
    except (OSError, TypeError):
        return None


def _of_class(definition: type) -> Iterator[object]:
    """A class by its name, its bases and its source; a notebook's by its members."""
    yield f"{definition.__module__}.{definition.__qualname__}"
    yield definition.__bases__
    source = _class_source(definition)
    if source is not None:
        yield source
        return
    for name, member in sorted(vars(definition).items()):
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        is_value = not (inspect.isroutine(member) or inspect.isdatadescriptor(member))
        if isinstance(function, FunctionType) or (is_value and not name.startswith("__")):
            yield from (name, function)


def _enclosed(function: FunctionType) -> list[object]:
    """The values of outer functions that it uses; a cell may still be empty."""
    cells = function.__closure__ or ()
    return [cell.cell_contents for cell in cells if cell != CellType()]


def _pickled(value: Any) -> Iterator[object]:
    """What pickle would keep of a value, else its attributes."""
    reduce = copyreg.dispatch_table.get(type(value))
    try:
        kept = value.__reduce_ex__(PICKLE_PROTOCOL) if reduce is None else reduce(value)
    except Exception:
        # Whatever the class's own code raises: it cannot be pickled.
        yield getattr(value, "__dict__", None)
        return
    if isinstance(kept, str):
        yield from (kept, getattr(value, "__dict__", None))
    else:
        yield from kept[:3]
        yield from (list(items) for items in kept[3:5] if items is not None)
