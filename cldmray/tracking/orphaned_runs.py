"""Orphaned runs, which a killed job (SIGKILL, a lost node) left as RUNNING, and their end."""

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cldmray import storage
from cldmray.errors import redact
from cldmray.hashing import fingerprint

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

JOB_TAG = "job"
"""Tag of parent runs: the same for all runs of one job that was started several times."""
CONTINUED_TAG = "continued_by"
"""Tag of an orphaned run: the run that went on."""
PARENT_TAG = "mlflow.parentRunId"


def job_key(kind: str, name: str, settings: Mapping[str, Any]) -> str:
    """What two starts have in common that go on from the same artifacts.

    Args:
        kind: of job.
        name: of its runs.
        settings: composed; ``cache_dir``, or where there is none ``output``, is the folder of the
            artifacts. ``output`` changes nothing else.

    Returns:
        16 hexadecimal characters, of this machine alone where the folder is not at a URI.
    """
    folder = str(settings.get("cache_dir") or settings.get("output") or ".")
    if "://" not in folder:
        folder = f"{socket.gethostname()}:{storage.resolve(folder)[1]}"
    kept = {key: value for key, value in settings.items() if key not in ("cache_dir", "output")}
    return fingerprint([kind, name, redact(kept), folder])


def end_orphaned_runs(client: "MlflowClient", experiment: str, key: str, by: str) -> None:
    """End the RUNNING runs of a job that is starting again, and their children, as KILLED.

    Args:
        client: MLflow's.
        experiment: id.
        key: of the job.
        by: id of the run that goes on; it stays as it is.

    Raises:
        MlflowException: MLflow failed.
    """

    def running(tag: str, value: str) -> list[str]:
        query = f"attributes.status = 'RUNNING' and tags.`{tag}` = '{value}'"
        return [run.info.run_id for run in client.search_runs([experiment], query)]

    for parent in running(JOB_TAG, key):
        if parent != by:
            for run in (*running(PARENT_TAG, parent), parent):
                client.set_tag(run, CONTINUED_TAG, by)
                client.set_terminated(run, "KILLED")
