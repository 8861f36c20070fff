"""A plain function as an anonymizer, for notebooks and the Python API."""

import functools
import inspect
import marshal
from collections.abc import Callable, Mapping
from dataclasses import field
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from cldmray.anonymizers.base import AnonymizeFunction, Anonymizer, Batch, Seeds
from cldmray.arrays import Images
from cldmray.errors import BadInputError
from cldmray.hashing import EXCLUDED_FROM_KEY, array_content, digest
from cldmray.results.names import Label, check_label
from cldmray.settings import checked_dataclass

ImagesFunction = Callable[[Images, Seeds], Images]
"""Maps images (N, height, width, 3) and seeds (N,) to anonymized images of the same shape."""


@checked_dataclass
class FunctionAnonymizer(Anonymizer):
    """Anonymizes with a function ``(images, seeds) -> images``.

    Ray sends the function to the workers, so that a notebook's functions and lambdas work, too.
    A result is kept until the function's source, or a value that it carries, changes: defaults,
    enclosed values, the arguments of a ``functools.partial``, the attributes of an object. What it
    reads from modules or files does not count.

    Attributes:
        function: gets RGB images, uint8, shape (N, height, width, 3), and seeds, int64, shape
            (N,); returns images of the same shape and type. Each image may depend on itself and
            its seed only.
        label: name in tables; None: the function's name.

    >>> def darken(images, seeds):
    ...     return images // 2
    >>> anonymizer = FunctionAnonymizer(darken)
    >>> anonymizer.name
    'darken'
    >>> batch = Batch(["a"], np.full((1, 4, 4, 3), 100, np.uint8), np.zeros(1, np.int64))
    >>> anonymizer.open()(batch).max()
    np.uint8(50)
    """

    function: ImagesFunction = field(metadata=EXCLUDED_FROM_KEY)
    label: Label | None = None

    def __post_init__(self) -> None:
        if self.label is None:
            name = getattr(self.function, "__name__", type(self.function).__name__)
            object.__setattr__(self, "label", "function" if name == "<lambda>" else name)
        check_label(self.label)

    @property
    def name(self) -> str:
        return str(self.label)

    def version(self) -> str:
        """Hash of the function's source and of the values that it carries."""
        return digest(*_parts(self.function))[:16]

    def open(self) -> AnonymizeFunction:
        return self._anonymize

    def _anonymize(self, batch: Batch) -> Images:
        """Anonymized images of a batch.

        Raises:
            BadInputError: the function returned something else than images of the same shape.
        """
        anonymized = np.asarray(self.function(batch.images, batch.seeds))
        if anonymized.shape != batch.images.shape or anonymized.dtype != np.uint8:
            raise BadInputError(
                f"{self.name}: the function must return uint8 images of shape "
                f"{batch.images.shape}, not {anonymized.dtype} {anonymized.shape}"
            )
        return anonymized


def _parts(value: object, inside: tuple[int, ...] = ()) -> list[object]:
    """What a function, or a value that it carries, depends on, as far as it tells by itself.

    Args:
        inside: ids of the values that lead to this one; one that holds itself ends there.
    """
    if id(value) in inside:
        return ["itself"]

    def all_of(kind: str, *values: object) -> list[object]:
        held = (*inside, id(value))
        parts = [part for each in values for part in ("(", *_parts(each, held), ")")]
        return [kind, *parts]

    if isinstance(value, functools.partial):
        return all_of("partial", value.func, value.args, value.keywords)
    if isinstance(value, MethodType):
        return all_of("method", value.__func__, value.__self__)
    if isinstance(value, FunctionType):
        carried = value.__defaults__, value.__kwdefaults__, _enclosed(value)
        return all_of("function", _source(value), *carried)
    if isinstance(value, (type, ModuleType, BuiltinFunctionType)):
        return [f"{getattr(value, '__module__', '')}.{value.__name__}", _source(value)]
    array = array_content(value)
    if array is not None:
        return [*array.values()]
    if isinstance(value, Mapping):
        return all_of("mapping", *(each for item in value.items() for each in item))
    if isinstance(value, (list, tuple)):
        return all_of(type(value).__name__, *value)
    if isinstance(value, (set, frozenset)):
        return ["set", *sorted(digest(*_parts(item, inside)) for item in value)]
    if hasattr(value, "__dict__"):
        return all_of("object", type(value), vars(value))
    return [type(value).__qualname__, repr(value)]


def _enclosed(function: FunctionType) -> list[object]:
    """The values of outer functions that it uses; a cell may still be empty."""
    cells = function.__closure__ or ()
    return [cell.cell_contents for cell in cells if cell != CellType()]


def _source(value: Any) -> object:
    """Source of a function or class; its code where there is no file, else its name."""
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        code = getattr(value, "__code__", None)
        return getattr(value, "__qualname__", "") if code is None else marshal.dumps(code)
