"""A function applied to many values in tasks of the cluster, as the built-in ``map`` applies it."""

import io
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import ray
from ray import cloudpickle

from cldmray.engine import cluster
from cldmray.engine.cluster import TASK_CPUS
from cldmray.engine.failures import reraise_worker_errors

Value = TypeVar("Value")
Result = TypeVar("Result")
SHARED_BYTES = 2**16
"""Size from which an array travels once, however many values hold it."""


def map_in_tasks(function: Callable[[Value], Result], values: Iterable[Value]) -> Iterator[Result]:
    """Results of a function for each value, in the order of the values; a task computes each.

    All tasks are submitted before the first result is given, and a result that was given is let go.
    Arrays of ``SHARED_BYTES`` and more that the values have in common, such as the embeddings of an
    attacker's attacks, are put into Ray's object store once; the tasks of a machine read them
    there, and may not write to them.

    Raises:
        CldmrayError: the one that the function raised.
    """
    cluster.start()
    task: Any = ray.remote(num_cpus=TASK_CPUS)(_call)
    shared = ray.put(function)
    arrays = SharedArrays(ray.put)
    with reraise_worker_errors():
        references = deque(task.remote(shared, *arrays.dump(value)) for value in values)
        while references:
            result: Result = ray.get(references.popleft())
            yield result


class SharedArrays:
    """Pickles values that have large arrays in common, each of which is put aside once.

    >>> put: list[np.ndarray] = []
    >>> arrays = SharedArrays(lambda array: put.append(array) or len(put) - 1)
    >>> large = np.zeros(SHARED_BYTES, np.uint8)
    >>> dumps = [arrays.dump([number, large]) for number in range(3)]
    >>> len(put), [places for _, places in dumps]
    (1, [[0], [0], [0]])

    Args:
        put: keeps an array, and gives what fetches it again.
    """

    def __init__(self, put: Callable[[np.ndarray], Any]) -> None:
        self._put = put
        # An id tells an array as long as the array is there, so it is kept beside what was put.
        self._put_before: dict[int, tuple[np.ndarray, Any]] = {}

    def dump(self, value: Any) -> tuple[bytes, list[Any]]:
        """The pickled value, and what ``put`` gave for each of its large arrays."""
        buffer = io.BytesIO()
        pickler = _Pickler(buffer, self._reference)
        pickler.dump(value)  # type: ignore[no-untyped-call]
        return buffer.getvalue(), list(pickler.references.values())

    def _reference(self, array: np.ndarray) -> Any:
        if id(array) not in self._put_before:
            self._put_before[id(array)] = array, self._put(array)
        return self._put_before[id(array)][1]


class _Pickler(cloudpickle.Pickler):
    """Leaves a number in the place of each large array.

    Attributes:
        references: what the arrays were made to, in the order of these numbers.
    """

    def __init__(self, buffer: io.BytesIO, reference: Callable[[np.ndarray], Any]) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            buffer, protocol=pickle.HIGHEST_PROTOCOL
        )
        self.references: dict[int, Any] = {}
        self._reference = reference

    def persistent_id(self, part: Any) -> int | None:
        """Called by ``dump`` for every object; None: it is pickled as usual."""
        if type(part) is not np.ndarray or part.nbytes < SHARED_BYTES or part.dtype.hasobject:
            return None
        self.references.setdefault(id(part), self._reference(part))
        return list(self.references).index(id(part))


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, fetched: list[np.ndarray]) -> None:
        super().__init__(io.BytesIO(content))
        self._fetched = fetched

    def persistent_load(self, place: int) -> np.ndarray:
        return self._fetched[place]


def load_shared(content: bytes, fetched: list[np.ndarray]) -> Any:
    """The value that :meth:`SharedArrays.dump` has pickled.

    Args:
        fetched: the array behind each of its places.
    """
    return _Unpickler(content, fetched).load()


def _call(function: Callable[[Value], Result], content: bytes, arrays: list[Any]) -> Result:
    return function(load_shared(content, ray.get(arrays)))
