"""Stages: named pieces of work whose results are found again instead of computed twice."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from cldmray import __version__, hashing, storage
from cldmray.engine.artifacts import Artifact, read_manifest
from cldmray.engine.failures import reraise_worker_errors, retry_on_node_failure
from cldmray.errors import CldmrayError


class StageTime(NamedTuple):
    """Name, wall time in seconds and rows of a stage; whether an earlier result was found."""

    name: str
    seconds: float
    rows: int
    reused: bool


class Work(NamedTuple):
    """What a stage does: its name, everything that decides the result, keys of its inputs."""

    name: str
    settings: Mapping[str, Any]
    inputs: Sequence[str]


class Stages:
    """Runs stages under one work folder and remembers how long each took.

    Args:
        work: local path or URI that audits share; each stage has the folder ``<name>-<key>``.
        announce: called with a line of text when a stage starts and ends.
    """

    def __init__(self, cache_dir: str, announce: Callable[[str], None]) -> None:
        self.cache_dir = cache_dir
        self.announce = announce
        self.times: list[StageTime] = []

    def place(self, cache_dir: Work) -> tuple[str, str]:
        """Key and folder of a stage, whether it has run or not."""
        identity = {
            "stage": cache_dir.name,
            "version": __version__,
            "inputs": list(cache_dir.inputs),
        }
        key = hashing.fingerprint(
            {**identity, "settings": hashing.canonicalize(cache_dir.settings)}
        )
        return key, storage.join(self.cache_dir, f"{cache_dir.name}-{key}")

    def finished(self, cache_dir: Work) -> bool:
        """Whether the stage would be found."""
        return read_manifest(self.place(cache_dir)[1]) is not None

    def run(
        self,
        name: str,
        settings: Mapping[str, Any],
        inputs: Sequence[str],
        produce: Callable[[str], None],
    ) -> Artifact:
        """The stage's table: found by the hash of what decides it, or produced now.

        Args:
            name: of the stage, used in its folder's name.
            settings: everything that decides the result, as objects or JSON-like data.
            inputs: keys of the tables that it reads.
            produce: given a folder, writes and commits the table there.

        Raises:
            CldmrayError: ``produce`` returned without committing, or one of its workers raised it.
        """
        key, folder = self.place(Work(name, settings, inputs))
        started = time.perf_counter()
        manifest = read_manifest(folder)
        reused = manifest is not None
        if manifest is None:
            self.announce(f"{name} ...")
            storage.make_folder(folder)
            with reraise_worker_errors():
                retry_on_node_failure(lambda: produce(folder), self.announce)
            manifest = read_manifest(folder)
            if manifest is None:
                raise CldmrayError(f"stage {name} ended without a manifest in {folder}")
        seconds = time.perf_counter() - started
        self.times.append(StageTime(name, seconds, manifest.rows, reused))
        origin = "found" if reused else f"{seconds:.1f} s"
        self.announce(f"{name}: {manifest.rows} rows, {origin}")
        return Artifact(folder, manifest, key, reused)
