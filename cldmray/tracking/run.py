"""What is written to one MLflow run."""

import math
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cldmray.errors import BadInputError
from cldmray.tracking.connection import explained
from cldmray.tracking.values import clean_metric, flat_params, flat_tags, result_metrics

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

METRICS_AT_ONCE = 1000
PARAMS_AT_ONCE = 100


class Run:
    """A run that is open; everything given to it is freed of secrets first.

    Attributes:
        run_id: MLflow's identifier.
    """

    def __init__(self, client: "MlflowClient", uri: str, run_id: str) -> None:
        self._client = client
        self._uri = uri
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
            Metric(clean_metric(name), float(value), now, step)
            for name, value in metrics.items()
            if not math.isnan(value)
        ]
        for start in range(0, len(entries), METRICS_AT_ONCE):
            self._log_batch(metrics=entries[start : start + METRICS_AT_ONCE])

    def log_results(self, results: pa.Table) -> None:
        """Record rows of ``results.table.RESULTS`` of one anonymizer and attacker as metrics.

        Raises:
            BadInputError: the rows are of several anonymizers or attackers.
            TrackingError: MLflow failed.
        """
        self.log_metrics(result_metrics(results))

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Record texts about the run, such as its verdict.

        Raises:
            TrackingError: MLflow failed.
        """
        from mlflow.entities import RunTag

        entries = [RunTag(key, value) for key, value in flat_tags(tags).items()]
        for start in range(0, len(entries), PARAMS_AT_ONCE):
            self._log_batch(tags=entries[start : start + PARAMS_AT_ONCE])

    def log_folder(self, folder: str, to: str | None = None) -> None:
        """Upload the files of a local folder as they are: whoever wrote them kept secrets out.

        Args:
            folder: local path.
            to: folder among the run's artifacts; None: their root.

        Raises:
            BadInputError: the folder is absent.
            TrackingError: MLflow failed.
        """
        if not Path(folder).is_dir():
            raise BadInputError(f"no such folder of artifacts: {folder}")
        with explained(self._uri):
            self._client.log_artifacts(self.run_id, folder, to)

    def log_files(self, files: Mapping[str, bytes]) -> None:
        """Upload contents as artifacts; a name may hold folders.

        Raises:
            TrackingError: MLflow failed.
        """
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                target = Path(folder, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            self.log_folder(folder)

    def log_curve(self, prefix: str, curve: Iterable[Mapping[str, float]]) -> None:
        """Record points with ``step`` and further numbers as metrics ``<prefix>/<number>``.

        Raises:
            TrackingError: MLflow failed.
        """
        for point in curve:
            numbers = {f"{prefix}/{key}": value for key, value in point.items() if key != "step"}
            self.log_metrics(numbers, step=int(point["step"]))

    def _log_batch(self, **entries: Any) -> None:
        with explained(self._uri):
            self._client.log_batch(self.run_id, **entries)
