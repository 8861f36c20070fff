"""Joining or starting Ray, and sizing work to what the cluster has."""

import logging
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from typing import Annotated, Any

import ray
from pydantic import Field
from ray.data import ActorPoolStrategy, DataContext

from cldmray.anonymizers.batching import DEFAULT_BATCH
from cldmray.errors import ConfigError
from cldmray.settings import checked_dataclass, environment

LOCAL = "local"
LOCAL_STARTS = 4
"""Times that a Ray of one's own is started where it is too slow, as on a busy machine."""
TOO_SLOW = "timed out during startup"
"""Part of Ray's error in that case, which has no class of its own."""
STDERR = 2
TASK_CPUS = 1.0
"""Logical CPUs of a task that computes, in one thread; as many run at once as there are cores."""
BLOCK_BYTES = 128 * 2**20
"""Raw pixels of one block of images at most."""
CONNECT_SECONDS = 5.0
"""How long a cluster may take to answer at all."""
HOST_AND_PORT = re.compile(r"(?:ray://)?\[?([^/]+?)\]?:(\d+)$")
KEEP_WORKERS = {"RAY_idle_worker_killing_time_threshold_ms": "60000"}
"""How long a local Ray keeps idle processes: until the next stage needs them. Ray's own limit of
one second is over before that, and another process has to import torch for three seconds."""
HIDE_GPUS = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
"""Without it, Ray 2.60 and later show all GPUs to a worker that asked for none."""
WORKER_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
}
"""Threads that wait instead of spinning, and memory that is kept for the next step.

Without the latter, glibc returns large buffers to the system after every step; where page faults
are dear, as in virtual machines, a training step was measured to take 4 to 50 times longer.
"""


@checked_dataclass
class EngineConfig:
    """How the audit uses the cluster.

    Attributes:
        address: None joins the cluster of ``ray job submit`` (``RAY_ADDRESS``) or starts a local
            one; ``local`` always starts one; otherwise an address to join.
        cpus: logical CPUs of a local cluster; None takes the machine's.
        actors: size of each pool of GPU actors (anonymizers, embedders), or its least size. Work
            on CPUs goes to tasks, as many at once as the cluster has CPUs.
        max_actors: most actors of a pool, which grows with the work and the cluster and shrinks
            with them; None keeps every pool at ``actors``.
        cpus_per_actor: logical CPUs of one pool actor. Small shares always leave room for the tasks
            that feed it.
        gpus_per_actor: GPUs of one pool actor; 0 runs on the CPU.
        threads: torch threads of one task or actor on the CPU.
        batch_size: images that are anonymized or embedded at once. None: an anonymizer on a GPU
            anonymizes as many as its memory holds, and everything else takes
            :data:`~cldmray.anonymizers.batching.DEFAULT_BATCH`.
        block_rows: images in one block of the stream and in one row group at most; large images
            make smaller blocks, of 128 MiB of raw pixels.
        train_workers: data-parallel workers of every training, or the fewest. Trainings of one
            worker without a GPU run in tasks, one beside the other; all others on Ray Train.
        max_train_workers: most workers of a training, which takes as many as the cluster has room
            for, and starts again from its last checkpoint where that changes; None keeps
            ``train_workers``.
        train_failures: failures of training workers that one training survives.
        cpus_per_train_worker: logical CPUs of one of several training workers without GPUs.
        gpus_per_train_worker: 0 trains on the CPU.
        object_store_mb: object store of a local cluster.
        dashboard: whether a local cluster serves Ray's dashboard on 127.0.0.1.
        progress: whether Ray Data draws bars of its own.
        env: environment variables of the workers.
        compile_cache: folder of what torch has compiled, shared by all actors that reach it, and by
            later audits; None: torch's own, which the actors of one machine share.
    """

    address: str | None = None
    cpus: Annotated[int, Field(ge=1)] | None = None
    actors: Annotated[int, Field(ge=1)] = 2
    max_actors: Annotated[int, Field(ge=1)] | None = None
    cpus_per_actor: Annotated[float, Field(ge=0)] = 0.25
    gpus_per_actor: Annotated[float, Field(ge=0)] = 0.0
    threads: Annotated[int, Field(ge=1)] = 1
    batch_size: Annotated[int, Field(ge=1)] | None = 64
    block_rows: Annotated[int, Field(ge=1)] = 256
    train_workers: Annotated[int, Field(ge=1)] = 1
    max_train_workers: Annotated[int, Field(ge=1)] | None = None
    train_failures: Annotated[int, Field(ge=0)] = 3
    cpus_per_train_worker: Annotated[float, Field(ge=0)] = 0.5
    gpus_per_train_worker: Annotated[float, Field(ge=0)] = 0.0
    object_store_mb: Annotated[int, Field(ge=80)] = 1024
    dashboard: bool = False
    progress: bool = False
    env: dict[str, str] = field(default_factory=lambda: dict(WORKER_ENVIRONMENT))
    compile_cache: str | None = None

    def __post_init__(self) -> None:
        for most, least in (("max_actors", "actors"), ("max_train_workers", "train_workers")):
            value = getattr(self, most)
            if value is not None and value < getattr(self, least):
                raise ValueError(f"{most}: must be null or at least {least}, got {value}")

    def rows_of(self, side: int) -> int:
        """Rows of a block of square images: ``block_rows``, fewer where the images are large.

        Args:
            side: of the images in pixels.

        >>> EngineConfig().rows_of(128), EngineConfig().rows_of(512), EngineConfig().rows_of(1024)
        (256, 170, 42)
        """
        return max(1, min(self.block_rows, BLOCK_BYTES // (3 * side**2)))

    @property
    def most_train_workers(self) -> int:
        """Workers that a training may have at most."""
        most = self.max_train_workers
        return self.train_workers if most is None else most

    def pool(self, calls: int | None = None, gpus: float | None = None) -> ActorPoolStrategy:
        """How many actors a stage gets; an elastic pool begins with those that there is room for.

        Ray must have been started. A CPU is left for the tasks that feed the actors.

        Args:
            calls: that an actor works on at a time, in threads of its own; None: Ray's choice.
            gpus: of one actor; None: ``gpus_per_actor``.
        """
        threads: dict[str, Any] = {}
        if calls is not None:
            threads = {"max_concurrent_calls_per_actor": calls, "enable_true_multi_threading": True}
        if self.max_actors is None:
            return ActorPoolStrategy(size=self.actors, **threads)
        share = self.gpus_per_actor if gpus is None else gpus
        wanted = {"CPU": self.cpus_per_actor, "GPU": share}
        there = ray.cluster_resources()
        there["CPU"] = max(0.0, there.get("CPU", 0.0) - 1)
        room = [int(there.get(kind, 0.0) // amount) for kind, amount in wanted.items() if amount]
        begin = max(self.actors, min([self.max_actors, *room]))
        return ActorPoolStrategy(
            min_size=self.actors, max_size=self.max_actors, initial_size=begin, **threads
        )

    @property
    def task_stage(self) -> dict[str, float]:
        """Resources of a stage of data tasks alone: one of them, which is enough to go on."""
        return {"CPU": TASK_CPUS}

    def pool_stage(self, gpus: float | None = None) -> dict[str, float]:
        """Resources of a stage that opens models: of tasks, or of an actor pool and what feeds it.

        The actors hold theirs until the stage ends. One data task is added, because actors that
        hold all CPUs would wait for ever for what feeds them.

        Args:
            gpus: of one actor; 0: it has tasks; None: ``gpus_per_actor``.
        """
        actors = self.actors if self.max_actors is None else self.max_actors
        share = self.gpus_per_actor if gpus is None else gpus
        if not share:
            return {**self.task_stage, "GPU": 0.0}
        return {"CPU": actors * self.cpus_per_actor + TASK_CPUS, "GPU": actors * share}

    @property
    def trains_in_tasks(self) -> bool:
        """Whether a training is one task, which needs no group of workers."""
        return self.most_train_workers == 1 and not self.gpus_per_train_worker

    @property
    def training_stage(self) -> dict[str, float]:
        """Resources of a training: those of its workers."""
        if self.trains_in_tasks:
            return self.task_stage
        workers = self.most_train_workers
        if self.gpus_per_train_worker:
            return {"GPU": workers * self.gpus_per_train_worker}
        return {"CPU": workers * self.cpus_per_train_worker}

    @property
    def embedded_at_once(self) -> int:
        """Images that an actor embeds or rebuilds at once."""
        return self.batch_size or DEFAULT_BATCH

    def rows_per_call(self, gpus: float) -> int | None:
        """Rows that an actor gets at once: blocks as they are, or with GPUs whole batches.

        Ray Data refuses an open batch size where an actor asks for a GPU. Smaller blocks are then
        joined, in the order in which they come.

        Args:
            gpus: of one actor.
        """
        at_once = self.embedded_at_once
        return at_once * max(1, DEFAULT_BATCH // at_once) if gpus else None

    @property
    def worker_environment(self) -> dict[str, str]:
        """Environment variables of the workers: GPUs are hidden from those that hold none."""
        variables = {**HIDE_GPUS, **self.env}
        if self.compile_cache is not None:
            variables["TORCHINDUCTOR_CACHE_DIR"] = self.compile_cache
            variables["TORCHINDUCTOR_FX_GRAPH_CACHE"] = "1"
        return variables


_LOCK = threading.Lock()
_postponed: EngineConfig | None = None
"""A local cluster that nothing has needed so far."""


def prepare(config: EngineConfig) -> None:
    """Join the cluster that the job runs in; a local one starts when :func:`start` is called.

    An audit that finds all its stages then never starts Ray.

    Raises:
        ConfigError: see :func:`connect`; of a local cluster what can be told before it starts.
    """
    global _postponed
    if ray.is_initialized() or _address(config) != LOCAL:
        connect(config)
        return
    _check_room(config, float(config.cpus or os.cpu_count() or 1))
    _postponed = config


def start() -> None:
    """Start the local cluster of :func:`prepare`, where it is not there yet.

    Raises:
        ConfigError: see :func:`connect`.
    """
    global _postponed
    with _LOCK:
        if _postponed is not None:
            connect(_postponed)
            _postponed = None


def _address(config: EngineConfig) -> str:
    return config.address or os.environ.get("RAY_ADDRESS") or LOCAL


def connect(config: EngineConfig) -> dict[str, Any]:
    """Join the cluster that the job runs in, or start a local one.

    Returns:
        The cluster's resources, for example ``{"CPU": 2.0, "GPU": 1.0}``.

    Raises:
        ConfigError: the cluster does not answer, Ray cannot be started, or actor pools or trainings
            ask for more than this machine could ever give.
    """
    address = _address(config)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if not ray.is_initialized():
        variables = config.worker_environment
        options: dict[str, Any] = {"log_to_driver": False}
        if address != LOCAL:
            options["runtime_env"] = {"env_vars": variables}
            variables = {}
        else:
            # What Ray's processes inherit costs their workers nothing; a runtime environment does.
            variables = {**KEEP_WORKERS, **variables}
            options.update(
                num_cpus=config.cpus or os.cpu_count(),
                object_store_memory=config.object_store_mb * 2**20,
                include_dashboard=config.dashboard,
                dashboard_host="127.0.0.1",
            )
        key = "engine.address" if config.address else "RAY_ADDRESS"
        _check_address(address, key)
        quiet, started = _without_log_level_line(), _start_errors(address, key)
        with quiet, started, environment(variables), _handler_of_sigterm_kept():
            _init(address, options)
    context = DataContext.get_current()
    context.enable_progress_bars = config.progress
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # an object, not the text of one
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"ray\.data\..*")
    resources = dict(ray.cluster_resources())
    wanted_gpus = config.gpus_per_actor * config.actors
    if wanted_gpus > 0 and resources.get("GPU", 0.0) == 0.0 and address == LOCAL:
        raise ConfigError(
            f"engine.gpus_per_actor: {config.gpus_per_actor} GPUs are asked for an actor, but this "
            "machine offers none to Ray; set it to 0 to run on the CPU"
        )
    if address == LOCAL:
        _check_training_gpus(config, resources.get("GPU", 0.0))
        _check_room(config, resources.get("CPU", 0.0))
    return resources


def _init(address: str, options: dict[str, Any]) -> None:
    """``ray.init``, again where a local Ray was too slow: it gives its processes 30 seconds.

    Raises:
        RuntimeError: it was too slow every time.
    """
    for _ in range(LOCAL_STARTS):
        try:
            ray.init(address=address, logging_level=logging.ERROR, **options)
            return
        except Exception as error:
            if TOO_SLOW not in str(error):
                raise
            ray.shutdown()
    raise RuntimeError(f"it did not answer {LOCAL_STARTS} times, for half a minute each")


def _check_training_gpus(config: EngineConfig, gpus: float) -> None:
    """Refuse trainings that would wait for ever for GPUs that a local cluster does not have.

    Raises:
        ConfigError: the message says how many there are.
    """
    workers, share = config.train_workers, config.gpus_per_train_worker
    if workers * share > gpus + 1e-9:
        raise ConfigError(
            f"engine.gpus_per_train_worker: {workers} workers of {share:g} GPUs need "
            f"{workers * share:g} GPUs, but Ray has {gpus:g} here; lower it or "
            "engine.train_workers, or set it to 0 to train on the CPU"
        )


@contextmanager
def _handler_of_sigterm_kept() -> Iterator[None]:
    """Ray's drivers install a handler of their own; outside of the main thread nobody can."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _check_address(address: str, key: str) -> None:
    """Find out within seconds whether a cluster answers; Ray tries for a quarter of an hour.

    Raises:
        ConfigError: it does not, or the address is of another kind.
    """
    if address.startswith(("http://", "https://")):
        raise ConfigError(
            f"{key}: {address} is the address of a dashboard; give HOST:6379 of the head node, or "
            f"send the job there: ray job submit --address {address} -- cldmray audit"
        )
    match = HOST_AND_PORT.match(address)
    if match is None:
        return
    try:
        socket.create_connection((match[1], int(match[2])), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"{key}: no cluster answers at {address} ({error}); start it (ray start --head), or "
            f"{'unset RAY_ADDRESS' if key == 'RAY_ADDRESS' else 'set engine.address=local'} to use "
            "this machine alone"
        ) from error


@contextmanager
def _start_errors(address: str, key: str) -> Iterator[None]:
    """Errors of joining or starting Ray as one line with the cure."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        if address != LOCAL:
            cure = "start a cluster first (ray start --head), or set engine=laptop"
            raise ConfigError(
                f"{key}: cannot join the cluster {address}: {reason}; {cure}"
            ) from error
        cure = "see that HOME and RAY_TMPDIR are folders that can be written"
        if "AF_UNIX" in reason:
            cure = "set RAY_TMPDIR to a folder with a shorter path, such as /tmp"
        if "half a minute" in reason:
            cure = "try again when the machine has less to do"
        raise ConfigError(
            f"engine.address: Ray cannot be started here: {reason}; {cure}"
        ) from error


def _check_room(config: EngineConfig, cpus: float) -> None:
    """Refuse pools and trainings that a local cluster could only wait for, for ever.

    Raises:
        ConfigError: the message says what would fit.
    """
    share = config.cpus_per_actor
    needed = config.actors * share + TASK_CPUS
    if config.gpus_per_actor and needed > cpus + 1e-9:
        fits = int((cpus - TASK_CPUS) / share + 1e-9)
        cure = f"set engine.actors={fits}" if fits >= 1 else "lower engine.cpus_per_actor"
        raise ConfigError(
            f"engine.actors: {config.actors} actors of {share:g} CPUs and the tasks that feed them "
            f"need {needed:g} CPUs, but Ray has {cpus:g} here; {cure}"
        )
    workers, share = config.train_workers, config.cpus_per_train_worker
    if not config.gpus_per_train_worker and workers * share > cpus + 1e-9:
        raise ConfigError(
            f"engine.train_workers: {workers} workers of {share:g} CPUs need {workers * share:g} "
            f"CPUs, but Ray has {cpus:g} here; lower engine.train_workers or "
            "engine.cpus_per_train_worker"
        )


def n_machines() -> int:
    """Machines of the connected cluster; several nodes of Ray on one machine count once."""
    return len({node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]})


@contextmanager
def _without_log_level_line() -> Iterator[None]:
    """Hold back what Ray's C++ core writes on stderr, and drop the line on its own log level."""
    sys.stderr.flush()
    kept = os.dup(STDERR)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, STDERR)
            os.close(kept)
            held.seek(0)
            for line in held:
                if b"RAY_BACKEND_LOG_LEVEL" not in line:
                    os.write(STDERR, line)
