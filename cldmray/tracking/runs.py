"""Opens and ends runs in MLflow: audits with a child for each attack, studies, trainings."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from pydantic import PositiveFloat, StringConstraints

from cldmray import storage
from cldmray.errors import ConfigError, redact_text
from cldmray.settings import NonEmpty, checked_dataclass
from cldmray.tracking.connection import (
    URI_VARIABLE,
    TrackingError,
    check_reachable,
    explained,
    failure,
    impatient,
    open_client,
    resolve_uri,
    sqlite_path,
)
from cldmray.tracking.orphaned_runs import JOB_TAG, PARENT_TAG, end_orphaned_runs, job_key
from cldmray.tracking.run import Run
from cldmray.tracking.values import flat_tags
from cldmray.tracking.versions import git_commit, package_versions

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_NAME"
DEFAULT_EXPERIMENT = "cldmray"


@checked_dataclass
class TrackingConfig:
    """Where runs are recorded.

    Attributes:
        uri: MLflow tracking URI; None: ``MLFLOW_TRACKING_URI``, else ``mlflow.db`` in the current
            folder, or in ``~/cldmray`` for a submitted job.
        experiment: name of the experiment, created where absent; None: ``MLFLOW_EXPERIMENT_NAME``,
            else ``cldmray``.
        timeout: seconds that a server has to answer the check before an audit, > 0.
    """

    uri: str | None = None
    experiment: Annotated[NonEmpty, StringConstraints(strip_whitespace=True)] | None = None
    timeout: PositiveFloat = 5.0


class Tracker:
    """Writes audits and trainings to MLflow by explicit run ids, without MLflow's global state.

    >>> tracker = Tracker(TrackingConfig(uri="https://user:secret@mlflow.example.org"))
    >>> tracker.shown_uri
    'https://***@mlflow.example.org'

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
    def is_default(self) -> bool:
        """Whether neither the settings nor the environment say where MLflow is."""
        return not (self.config.uri or os.environ.get(URI_VARIABLE))

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return self.config.experiment or os.environ.get(EXPERIMENT_VARIABLE) or DEFAULT_EXPERIMENT

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
            TrackingError: they cannot, or the SQLite file was moved; the message names the URI and
                what to do.
            StorageError: the folder of the default SQLite file cannot be made.
            ConfigError: the experiment was deleted.
        """
        if self.is_default and (path := sqlite_path(self.uri)) is not None:
            storage.make_folder(str(path.parent))
        check_reachable(self.uri, self.config.timeout)
        with impatient(self.config.timeout):
            self._experiment()

    @contextmanager
    def job_run(
        self,
        kind: str,
        name: str,
        params: Mapping[str, Any],
        *,
        seeds: Mapping[str, int] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Iterator[Run]:
        """The run of one job, tagged with commit, package versions and seeds.

        It ends as FINISHED, FAILED after an exception, or KILLED after KeyboardInterrupt (which
        :mod:`cldmray.cli.runtime` also makes of SIGTERM) or SystemExit; these pass on. Orphaned
        runs of the same job are ended first (:mod:`cldmray.tracking.orphaned_runs`).

        Args:
            kind: ``audit``, ``attribution``, ``reconstruction`` or ``training``.
            name: name of the run.
            params: the composed configuration.
            seeds: random seeds by purpose.
            tags: further tags.
        """
        key = job_key(kind, name, params)
        facts = {"kind": kind, JOB_TAG: key, **(tags or {})}
        facts |= {f"seed.{purpose}": str(seed) for purpose, seed in (seeds or {}).items()}
        facts |= {f"version.{package}": version for package, version in package_versions().items()}
        if commit := git_commit():
            facts |= {"git_commit": commit, "mlflow.source.git.commit": commit}
        with self._opened(name, facts) as run:
            with explained(self.uri):
                end_orphaned_runs(self.client, self._experiment(), key, run.run_id)
            run.log_params(params)
            yield run

    @contextmanager
    def trial_run(self, parent: Run, anonymizer: str, trial: str) -> Iterator[Run]:
        """A run below a reconstruction study's for one trial of a search.

        It ends as ``job_run`` does.

        Args:
            parent: the study's run.
            anonymizer: its name in tables.
            trial: its name in the table of trials.
        """
        tags = {"kind": "trial", "anonymizer": anonymizer, "trial": trial}
        with self._opened(f"{anonymizer} / trial {trial}", tags, parent=parent.run_id) as run:
            yield run

    @contextmanager
    def child_run(self, parent: Run, anonymizer: str, attacker: str) -> Iterator[Run]:
        """A run below an audit's for what one attacker reached against one anonymizer.

        It ends as ``job_run`` does.

        Args:
            parent: the audit's run.
            anonymizer: its name in tables.
            attacker: its name in tables.
        """
        tags = {"kind": "attack", "anonymizer": anonymizer, "attacker": attacker}
        with self._opened(f"{anonymizer} / {attacker}", tags, parent=parent.run_id) as run:
            yield run

    @contextmanager
    def _opened(
        self, name: str, tags: Mapping[str, str], parent: str | None = None
    ) -> Iterator[Run]:
        linked = {**flat_tags(tags), **({} if parent is None else {PARENT_TAG: parent})}
        experiment = self._experiment()
        with explained(self.uri):
            created = self.client.create_run(experiment, tags=linked, run_name=redact_text(name))
        run = Run(self.client, self.uri, created.info.run_id)
        try:
            yield run
            with explained(self.uri):
                self.client.set_terminated(run.run_id, "FINISHED")
        except BaseException as error:
            killed = isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit)
            self._close_after_error(run, "KILLED" if killed else "FAILED")
            raise

    def _close_after_error(self, run: Run, status: str) -> None:
        """Close without hiding the error that is on its way."""
        try:
            with impatient(self.config.timeout), explained(self.uri):
                self.client.set_terminated(run.run_id, status)
        except TrackingError as error:
            log.warning("run %s stays open: %s", run.run_id, error)

    def _experiment(self) -> str:
        if self._experiment_id is None:
            name = self.experiment
            with explained(self.uri):
                experiment = self.client.get_experiment_by_name(name)
            if experiment is not None and experiment.lifecycle_stage != "active":
                raise ConfigError(
                    f"tracking.experiment: {name!r} was deleted in MLflow at {self.shown_uri}; "
                    "restore it there or take another name"
                )
            if experiment is not None:
                self._refuse_moved(experiment.artifact_location)
            with explained(self.uri):
                self._experiment_id = (
                    experiment.experiment_id
                    if experiment is not None
                    else self.client.create_experiment(name, self._artifact_location(name))
                )
        return self._experiment_id

    def _refuse_moved(self, location: str) -> None:
        """Raise where a SQLite file's experiment writes to the place that the file once had.

        MLflow keeps that place in the file: artifacts would go to the former folder, or nowhere.

        Args:
            location: URI of the experiment's artifacts.
        """
        expected = self._artifact_location(self.experiment)
        if expected is None or not location.startswith("file:"):
            return
        before, now = (Path(url2pathname(urlsplit(uri).path)) for uri in (location, expected))
        if before.parts[-2:] == now.parts[-2:] and before.resolve() != now.resolve():
            raise failure(
                self.uri,
                f"it was moved or copied, and the experiment {self.experiment!r} still writes "
                f"its artifacts to {before}",
                "move it back, or begin another experiment there (tracking.experiment=NAME)",
            )

    def _artifact_location(self, experiment: str) -> str | None:
        """Beside a SQLite file, whatever the current folder; a server has its own place."""
        path = sqlite_path(self.uri)
        return None if path is None else (path.parent / "mlruns" / quote(experiment, "")).as_uri()
