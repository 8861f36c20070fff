"""Audits in MLflow: one parent run, one child for each anonymizer and attacker."""

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa

from cldmray.errors import ConfigError
from cldmray.tracking.connection import (
    TrackingError,
    check_reachable,
    explained,
    impatient,
    open_client,
    resolve_uri,
    sqlite_path,
)
from cldmray.tracking.redact import is_secret_key, redact_text, HIDDEN
from cldmray.tracking.values import clean_key, flat_params, result_metrics, shortened
from cldmray.tracking.versions import git_commit, package_versions

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

METRICS_AT_ONCE = 1000
PARAMS_AT_ONCE = 100
PARENT_TAG = "mlflow.parentRunId"


@dataclass(frozen=True)
class TrackingConfig:
    """Where runs are recorded.

    Attributes:
        uri: MLflow tracking URI; None: ``MLFLOW_TRACKING_URI``, else ``mlflow.db`` in the current
            folder.
        experiment: name of the experiment, created where absent.
        timeout: seconds that a server has to answer the check before an audit, > 0.
    """

    uri: str | None = None
    experiment: str = "cldmray"
    timeout: float = 5.0

    def __post_init__(self) -> None:
        if not self.experiment.strip():
            raise ValueError("experiment must not be empty")
        if not self.timeout > 0:
            raise ValueError(f"timeout must be above 0, not {self.timeout}")


class Run:
    """A run that is open; everything given to it is freed of secrets first.

    Attributes:
        run_id: MLflow's identifier.
    """

    def __init__(self, tracker: "Tracker", run_id: str) -> None:
        self._tracker = tracker
        self.run_id = run_id

    def log_params(self, settings: Mapping[str, Any]) -> None:
        """Record nested settings as dotted keys (see ``values.flat_params``).

        Raises:
            TrackingError: MLflow failed, or a key was recorded before with another value.
        """
        from mlflow.entities import Param

        params = [Param(key, value) for key, value in flat_params(settings).items()]
        for start in range(0, len(params), PARAMS_AT_ONCE):
            self._log_batch(params=params[start : start + PARAMS_AT_ONCE])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record numbers in as few requests as MLflow allows; NaN, which says nothing, is left out.

        Raises:
            TrackingError: MLflow failed.
        """
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [
            Metric(name, float(value), now, step)
            for name, value in metrics.items()
            if not math.isnan(value)
        ]
        for start in range(0, len(entries), METRICS_AT_ONCE):
            self._log_batch(metrics=entries[start : start + METRICS_AT_ONCE])

    def log_results(self, results: pa.Table) -> None:
        """Record rows of ``records.RESULTS`` of one anonymizer and attacker as metrics.

        Raises:
            BadInputError: the rows are of several anonymizers or attackers.
            TrackingError: MLflow failed.
        """
        self.log_metrics(result_metrics(results))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record words about the run.

        Raises:
            TrackingError: MLflow failed.
        """
        from mlflow.entities import RunTag

        entries = [RunTag(clean_key(key), value) for key, value in _clean_tags(tags).items()]
        for start in range(0, len(entries), PARAMS_AT_ONCE):
            self._log_batch(tags=entries[start : start + PARAMS_AT_ONCE])

    def log_folder(self, folder: str, to: str | None = None) -> None:
        """Upload the files of a local folder as they are: whoever wrote them kept secrets out.

        Args:
            folder: local path.
            to: folder among the run's artifacts; None: their root.

        Raises:
            TrackingError: the folder is absent or MLflow failed.
        """
        with explained(self._tracker.uri):
            if not Path(folder).is_dir():
                raise NotADirectoryError(f"no such folder of artifacts: {folder}")
            self._tracker.client.log_artifacts(self.run_id, folder, to)

    @contextmanager
    def child_run(self, anonymizer: str, attacker: str) -> Iterator["Run"]:
        """A run below this one for what an attacker reached against an anonymizer.

        Args:
            anonymizer: its name in tables.
            attacker: its name in tables.
        """
        tags = {"kind": "attack", "anonymizer": anonymizer, "attacker": attacker}
        with self._tracker.opened(f"{anonymizer} / {attacker}", tags, parent=self.run_id) as run:
            yield run

    def _log_batch(self, **entries: Any) -> None:
        with explained(self._tracker.uri):
            self._tracker.client.log_batch(self.run_id, **entries)


class Tracker:
    """Writes audits to MLflow through explicit run ids, without MLflow's global state.

    Attributes:
        config: where.
        uri: resolved tracking URI; it may hold credentials and is never shown.
    """

    def __init__(self, config: TrackingConfig) -> None:
        self.config = config
        self.uri = resolve_uri(config.uri)
        self._client: MlflowClient | None = None
        self._experiment_id: str | None = None

    @property
    def shown_uri(self) -> str:
        """The tracking URI without credentials."""
        return redact_text(self.uri)

    @property
    def client(self) -> "MlflowClient":
        """MLflow's client, made on first use."""
        if self._client is None:
            with explained(self.uri):
                self._client = open_client(self.uri)
        return self._client

    def check(self) -> None:
        """Make sure, within seconds, that runs can be written; creates the experiment.

        Raises:
            TrackingError: they cannot; the message names the URI and what to do.
            ConfigError: the experiment was deleted.
        """
        check_reachable(self.uri, self.config.timeout)
        with impatient(self.config.timeout):
            self._experiment()

    @contextmanager
    def audit_run(
        self,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        seeds: Mapping[str, int] | None = None,
        data_fingerprint: str | None = None,
    ) -> Iterator[Run]:
        """The parent run of an audit, tagged with commit, package versions, seeds and data.

        It ends as FINISHED, FAILED after an exception, or KILLED after KeyboardInterrupt or
        SystemExit (which Ray's drivers raise on SIGTERM); these pass on.

        Args:
            name: name of the run.
            params: the composed configuration.
            tags: further words.
            seeds: random seeds by purpose.
            data_fingerprint: fingerprint of the faces that were audited.
        """
        facts = {"kind": "audit", **(tags or {})}
        facts |= {f"version.{package}": version for package, version in package_versions().items()}
        facts |= {f"seed.{purpose}": str(seed) for purpose, seed in (seeds or {}).items()}
        if commit := git_commit():
            facts |= {"git_commit": commit, "mlflow.source.git.commit": commit}
        if data_fingerprint is not None:
            facts["data_fingerprint"] = data_fingerprint
        with self.opened(name, facts) as run:
            run.log_params(params)
            yield run

    @contextmanager
    def opened(
        self, name: str, tags: Mapping[str, str], parent: str | None = None
    ) -> Iterator[Run]:
        """A run that is closed with the status of its block; ``parent`` is a run id."""
        linked = {} if parent is None else {PARENT_TAG: parent}
        experiment = self._experiment()
        with explained(self.uri):
            created = self.client.create_run(experiment, tags=linked, run_name=redact_text(name))
        run = Run(self, created.info.run_id)
        try:
            run.set_tags(tags)
            yield run
        except BaseException as error:
            killed = isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit)
            self._close_after_error(run, "KILLED" if killed else "FAILED")
            raise
        with explained(self.uri):
            self.client.set_terminated(run.run_id, "FINISHED")

    def _close_after_error(self, run: Run, status: str) -> None:
        """Close without hiding the error that is on its way."""
        try:
            with impatient(self.config.timeout), explained(self.uri):
                self.client.set_terminated(run.run_id, status)
        except TrackingError as error:
            log.warning("run %s stays open: %s", run.run_id, error)

    def _experiment(self) -> str:
        if self._experiment_id is None:
            name = self.config.experiment
            with explained(self.uri):
                found = self.client.get_experiment_by_name(name)
            if found is not None and found.lifecycle_stage != "active":
                raise ConfigError(
                    f"tracking.experiment: {name!r} was deleted in MLflow at {self.shown_uri}; "
                    "restore it there or take another name"
                )
            with explained(self.uri):
                self._experiment_id = (
                    found.experiment_id
                    if found is not None
                    else self.client.create_experiment(name, self._artifact_location(name))
                )
        return self._experiment_id

    def _artifact_location(self, experiment: str) -> str | None:
        """Beside a SQLite file, whatever the current folder; a server has its own place."""
        path = sqlite_path(self.uri)
        return None if path is None else (path.parent / "mlruns" / quote(experiment, "")).as_uri()


def _clean_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {
        key: HIDDEN if is_secret_key(key) else shortened(redact_text(str(value)))
        for key, value in tags.items()
    }
