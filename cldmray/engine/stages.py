"""The stage graph: pieces of work that are found again, or run as soon as their inputs are there.

A stage writes one artifact. Its key is a hash of everything that decides the artifact (settings,
inputs and code, see :mod:`cldmray.engine.source_code`), so that the same work is never done twice.
A stage that was submitted waits for its inputs and for room in the
cluster; whatever has both runs, in a thread of the driver that waits for Ray.
"""

import atexit
import ctypes
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self

import ray
from ray.data import Dataset

from cldmray import __version__, hashing, storage
from cldmray.engine import cluster
from cldmray.engine.artifacts import Artifact, ArtifactKey, read_manifest
from cldmray.engine.failures import reraise_worker_errors, retry_on_node_failure
from cldmray.engine.source_code import code_fingerprint
from cldmray.errors import CldmrayError

logger = logging.getLogger(__name__)

STOP_SECONDS, EXIT_SECONDS = 10.0, 2.0
"""How long interrupted stages are waited for: after an error, and at the process's end."""
TOLERANCE = 1e-9
"""By which shares of a CPU or GPU may sum up to more than there are."""


_ALL: "weakref.WeakSet[Stages]" = weakref.WeakSet()


class StageTime(NamedTuple):
    """Name, wall time in seconds and rows of a stage; whether an earlier result was found."""

    name: str
    seconds: float
    rows: int
    reused: bool


@dataclass(frozen=True)
class StageSpec:
    """A stage before it runs: what it reads, what decides it, what it needs and what it does.

    Attributes:
        name: of the stage, used in its folder's name: ``anonymize-blur``.
        settings: everything that decides the artifact, as objects or JSON-like data.
        inputs: artifacts that it reads, stages that produce them, or keys of either.
        produce: given a folder, writes and commits the artifact there. It runs in a thread and must
            not run further stages.
        title: what the stage does, in the words of a log line; the name by default.
        resources: logical CPUs and GPUs that the stage holds at once, ``{"CPU": 1.0}``; None: the
            whole cluster, so that nothing else runs beside it.
    """

    name: str
    settings: Mapping[str, Any]
    inputs: Sequence["Artifact | StageHandle | ArtifactKey"]
    produce: Callable[[str], None]
    title: str = ""
    resources: Mapping[str, float] | None = None


@dataclass(frozen=True, eq=False)
class StageHandle:
    """A stage whose key and folder are known, and whose artifact may still have to be produced.

    Attributes:
        spec: the stage.
        key: hash of what decides the artifact; known before the inputs have been produced.
        folder: where the artifact is, or will be.
    """

    spec: StageSpec
    key: ArtifactKey
    folder: str
    _future: "Future[Artifact]" = field(default_factory=Future, repr=False)

    @property
    def exists(self) -> bool:
        """Whether the artifact is there, so that running the stage costs nothing."""
        return read_manifest(self.folder) is not None

    @property
    def done(self) -> bool:
        """Whether a submitted stage has ended, well or not."""
        return self._future.done()

    def result(self) -> Artifact:
        """The artifact of a submitted stage, once it is there.

        Raises:
            CldmrayError: the stage, or one of those that it depends on, failed; the error is the
                one that was raised there. Other errors come out as they are, too.
            CancelledError: the graph was stopped before.
        """
        return self._future.result()

    def stream(self, columns: list[str], block_rows: int) -> Dataset:
        """Rows of the artifact, once it is there; see :meth:`Artifact.stream`."""
        return self.result().stream(columns, block_rows)

    @property
    def title(self) -> str:
        """What the stage does, for people."""
        return self.spec.title or self.spec.name

    @property
    def waits_for(self) -> list["StageHandle"]:
        """The stages that must end before it begins."""
        return [stage for stage in self.spec.inputs if isinstance(stage, StageHandle)]


class Stages:
    """Runs stages under one cache folder, as many at once as the cluster has room for.

    Used as a context manager it waits for what was submitted, and stops it after an error.

    Args:
        cache_dir: local path or URI that audits share; each stage has the folder ``<name>-<key>``.

    Attributes:
        times: of the stages that have ended.
        keys: of all stages that were submitted, which stand for everything that they depend on.

    Example:
        >>> import tempfile
        >>> from cldmray.engine.artifacts import Manifest, commit
        >>> stages = Stages(tempfile.mkdtemp())
        >>> def produce(folder: str) -> None:
        ...     commit(folder, Manifest({}))
        >>> faces = stages.submit(StageSpec("faces", {"size": 64}, [], produce))
        >>> blur = stages.submit(StageSpec("blur", {"sigma": 4}, [faces], produce))
        >>> blur.result().reused
        False
        >>> stages.run("blur", {"sigma": 4}, [faces], produce).reused
        True
    """

    def __init__(self, cache_dir: str) -> None:
        self.cache_dir = cache_dir
        self.times: list[StageTime] = []
        self.keys: set[ArtifactKey] = set()
        self._lock = threading.RLock()
        self._waiting: list[StageHandle] = []
        self._running: dict[StageHandle, threading.Thread] = {}
        self._stopped = False
        _ALL.add(self)

    def plan(self, spec: StageSpec) -> StageHandle:
        """The stage with its key and folder, without running it."""
        identity = {
            "stage": spec.name,
            "version": __version__,
            "code": code_fingerprint(spec.settings, spec.produce),
            "inputs": [part if isinstance(part, str) else part.key for part in spec.inputs],
        }
        key = hashing.fingerprint({**identity, "settings": hashing.canonicalize(spec.settings)})
        return StageHandle(spec, key, storage.join(self.cache_dir, f"{spec.name}-{key}"))

    def submit(self, spec: StageSpec) -> StageHandle:
        """Let a stage run as soon as its inputs are there and the cluster has room for it.

        A stage that is waiting or running already is not run a second time.
        """
        handle = self.plan(spec)
        if not handle.exists:
            cluster.start()
        with self._lock:
            self.keys.add(handle.key)
            for other in (*self._running, *self._waiting):
                if other.key == handle.key:
                    return other
            self._waiting.append(handle)
            self._dispatch()
        return handle

    def run(
        self,
        name: str,
        settings: Mapping[str, Any],
        inputs: Sequence[Artifact | StageHandle | str],
        produce: Callable[[str], None],
        *,
        title: str = "",
        resources: Mapping[str, float] | None = None,
    ) -> Artifact:
        """The artifact of a stage: found, or produced now; see :class:`StageSpec`.

        Raises:
            CldmrayError: ``produce`` returned without committing, or one of its workers raised it.
        """
        return self.result(
            self.submit(StageSpec(name, settings, inputs, produce, title, resources))
        )

    def result(self, handle: StageHandle) -> Artifact:
        """The artifact of a submitted stage; Ctrl-C while it is waited for stops all stages."""
        try:
            return handle.result()
        except KeyboardInterrupt:
            self.stop(wait=0.0)
            raise

    def stop(self, wait: float = STOP_SECONDS) -> None:
        """Cancel what waits and interrupt what runs; nothing can be submitted afterwards.

        Args:
            wait: seconds to wait for what runs. Threads that are still busy end with the process.
        """
        with self._lock:
            self._stopped = True
            waiting, self._waiting = self._waiting, []
            threads = list(self._running.values())
        for handle in waiting:
            handle._future.set_exception(CancelledError(f"{handle.title}: was stopped"))
        for thread in threads:
            _interrupt(thread)
        deadline = time.monotonic() + wait
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.stop(wait=STOP_SECONDS if isinstance(error, Exception) else 0.0)
            return
        while handle := self._unfinished():
            self.result(handle)

    def _unfinished(self) -> StageHandle | None:
        """A stage that runs or waits."""
        with self._lock:
            return next(iter((*self._running, *self._waiting)), None)

    def _dispatch(self) -> None:
        """Start whatever has its inputs and fits; the lock is held."""
        if self._stopped:
            waiting, self._waiting = self._waiting, []
            for handle in waiting:
                handle._future.set_exception(CancelledError(f"{handle.title}: was stopped"))
        for handle in list(self._waiting):
            inputs = [stage._future for stage in handle.waits_for]
            if not all(future.done() for future in inputs):
                continue
            errors = [error for future in inputs if (error := future.exception())]
            if errors:
                self._waiting.remove(handle)
                handle._future.set_exception(errors[0])
                return self._dispatch()
            if self._fits(handle.spec.resources):
                self._waiting.remove(handle)
                thread = threading.Thread(
                    target=self._execute, args=[handle], name=handle.spec.name, daemon=True
                )
                self._running[handle] = thread
                thread.start()

    def _fits(self, resources: Mapping[str, float] | None) -> bool:
        """Whether what runs leaves room; on an idle cluster everything may run."""
        if not self._running:
            return True
        running = [handle.spec.resources for handle in self._running]
        if resources is None or None in running:
            return False
        there = cluster_size()
        return all(
            amount + sum(other.get(kind, 0.0) for other in running if other)
            <= there.get(kind, 0.0) + TOLERANCE
            for kind, amount in resources.items()
            if amount
        )

    def _execute(self, handle: StageHandle) -> None:
        """Find or produce the artifact of a stage, in a thread of the driver."""
        name, folder = handle.spec.name, handle.folder
        started = time.perf_counter()
        outcome: Artifact | BaseException
        try:
            manifest = read_manifest(folder)
            reused = manifest is not None
            if manifest is None:
                self._log(handle, True, "%s ...")
                storage.make_folder(folder)
                with reraise_worker_errors():
                    for attempt in retry_on_node_failure():
                        with attempt:
                            handle.spec.produce(folder)
                manifest = read_manifest(folder)
            if manifest is None:
                raise CldmrayError(f"stage {name} ended without a manifest in {folder}")
            outcome = Artifact(folder, manifest, handle.key, reused)
        except BaseException as error:
            outcome = error
            self._log(handle, False, "%s: %s", type(error).__name__)
        with self._lock:
            del self._running[handle]
            if isinstance(outcome, Artifact):
                seconds, rows = time.perf_counter() - started, outcome.manifest.rows
                self.times.append(StageTime(name, seconds, rows, outcome.reused))
                origin = "found" if outcome.reused else f"{seconds:.1f} s"
                self._log(handle, False, "%s: %d rows, %s", rows, origin)
                handle._future.set_result(outcome)
            else:
                handle._future.set_exception(outcome)
            self._dispatch()

    @staticmethod
    def _log(handle: StageHandle, running: bool, text: str, *values: object) -> None:
        """Log a line on a stage; ``stage`` and ``running`` let a terminal show what runs."""
        extra = {"stage": handle.key, "running": running}
        logger.info(text, handle.title, *values, extra=extra)


def _stop_all() -> None:
    """Before Ray ends: a late call of a thread would start another Ray."""
    for stages in list(_ALL):
        stages.stop(EXIT_SECONDS)


atexit.register(_stop_all)


def cluster_size() -> Mapping[str, float]:
    """Logical CPUs and GPUs of the cluster; without Ray, the CPUs of this machine."""
    if not ray.is_initialized():
        return {"CPU": float(os.cpu_count() or 1)}
    size: Mapping[str, float] = ray.cluster_resources()
    return size


def _interrupt(thread: threading.Thread) -> None:
    """Raise KeyboardInterrupt in a thread, as soon as it runs Python code again."""
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(KeyboardInterrupt)
        )
