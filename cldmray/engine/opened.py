"""Functions of blocks that need something opened: the weights of a network, an inference session.

On CPUs they are called in tasks. Ray keeps the processes of tasks and lets them serve one stage
after the other, so that importing torch is paid once and not once a stage; a process opens what a
stage needs with its first block. With GPUs they live in the actors of a pool, which hold their GPU.
"""

import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from ray.data import Dataset

from cldmray.engine.cluster import TASK_CPUS, EngineConfig

MOST_KEPT_MB = 2048
"""Resident memory of a process above which it forgets what it has opened before it opens more."""
PAGE_MB = 4096 / 2**20

_OPENED: dict[str, dict[str, Any]] = {}
_OPENING = threading.RLock()


class Opened(ABC):
    """A function of blocks that loads what it needs once in every process that calls it.

    Args:
        arguments: for :meth:`open`; they travel to the workers.

    Example:
        >>> class Scale(Opened):
        ...     def open(self, factor: int) -> None:
        ...         self.factor = factor
        ...     def __call__(self, block: pa.Table) -> pa.Table:
        ...         self.ensure_opened()
        ...         return pa.table({"x": [self.factor * x for x in block["x"].to_pylist()]})
        >>> Scale(3)(pa.table({"x": [1, 2]}))["x"].to_pylist()
        [3, 6]
    """

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self._id = uuid.uuid4().hex

    @abstractmethod
    def open(self, *arguments: Any) -> None:
        """Load what the calls need, as attributes of the object."""

    @abstractmethod
    def __call__(self, block: pa.Table) -> pa.Table:
        """What becomes of a block; begins with :meth:`ensure_opened`."""

    def ensure_opened(self) -> None:
        """Open it, unless this process has done so for an earlier block.

        Raises:
            CldmrayError: it cannot be opened.
        """
        with _OPENING:
            if self._id not in _OPENED:
                if _resident_mb() > MOST_KEPT_MB:
                    _OPENED.clear()
                self.open(*self.arguments)
                _OPENED[self._id] = dict(vars(self))
            vars(self).update(_OPENED[self._id])


def map_opened(
    stream: Dataset,
    function: Opened,
    engine: EngineConfig,
    gpus: float = 0.0,
    *,
    calls: int | None = None,
    resources: Mapping[str, float] | None = None,
) -> Dataset:
    """Let the blocks of a stream go through a function, in tasks or in a pool of GPU actors.

    Args:
        gpus: of one actor; 0: tasks.
        calls: that an actor works on at a time; None: Ray's choice.
        resources: of Ray that a task or actor needs beside CPUs and GPUs.
    """
    custom = dict(resources or {}) or None
    if not gpus:
        return stream.map_batches(
            function,
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=TASK_CPUS,
            resources=custom,
        )
    return stream.map_batches(
        type(function),
        fn_constructor_args=function.arguments,
        batch_format="pyarrow",
        batch_size=engine.rows_per_call(gpus),
        compute=engine.pool(calls, gpus),
        num_cpus=engine.cpus_per_actor,
        num_gpus=gpus,
        resources=custom,
    )


def _resident_mb() -> float:
    """Resident memory of this process; 0 where the system does not tell."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * PAGE_MB if file.exists() else 0.0
