"""A function applied to many values in tasks of the cluster, as the built-in ``map`` applies it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray

from cldmray.engine.cluster import TASK_CPUS
from cldmray.engine.failures import reraise_worker_errors

Value = TypeVar("Value")
Result = TypeVar("Result")


def map_in_tasks(function: Callable[[Value], Result], values: Iterable[Value]) -> Iterator[Result]:
    """Results of a function for each value, in the order of the values; a task computes each.

    All tasks are submitted before the first result is given.

    Raises:
        CldmrayError: the one that the function raised.
    """
    task: Any = ray.remote(num_cpus=TASK_CPUS)(_call)
    shared = ray.put(function)
    with reraise_worker_errors():
        references = [task.remote(shared, value) for value in values]
        for reference in references:
            result: Result = ray.get(reference)
            yield result


def _call(function: Callable[[Value], Result], value: Value) -> Result:
    return function(value)
