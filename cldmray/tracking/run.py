"""What is written to one MLflow run."""

import json
import math
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cldmray.errors import BadInputError, redact_text
from cldmray.tracking.connection import explained
from cldmray.tracking.values import clean_metric, flat_params, flat_tags, shortened

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

Curve = Iterable[Mapping[str, float]]
"""Points of a training with ``step`` and further numbers."""
MOST_AT_ONCE = {"params": 100, "tags": 100, "metrics": 800}
"""What MLflow takes in one request; 1,000 entries in all."""
DESCRIPTION_TAG = "mlflow.note.content"
LONGEST_DESCRIPTION = 5000


class Run:
    """A run that is open; everything given to it is freed of secrets first.

    Attributes:
        run_id: MLflow's identifier.
    """

    def __init__(self, client: "MlflowClient", uri: str, run_id: str) -> None:
        self._client = client
        self._uri = uri
        self.run_id = run_id

    def log(
        self,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, object] | None = None,
        curves: Mapping[str, Curve] | None = None,
        description: str | None = None,
    ) -> None:
        """Record all of it in as few requests as MLflow allows.

        Args:
            params: nested settings, which become dotted keys (see ``values.flat_params``).
            metrics: numbers; NaN, which says nothing, is left out.
            tags: texts about the run, such as its verdict.
            curves: points with ``step`` and further numbers, by prefix; they become the metrics
                ``<prefix>/<number>``.
            description: Markdown that MLflow shows above the run's numbers; cut where MLflow would
                refuse its length.

        Raises:
            TrackingError: MLflow failed, or a parameter was recorded before with another value.
        """
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        numbers = [(name, value, 0) for name, value in (metrics or {}).items()]
        for prefix, curve in (curves or {}).items():
            numbers += [
                (f"{prefix}/{name}", value, int(point["step"]))
                for point in curve
                for name, value in point.items()
                if name != "step"
            ]
        names = {name: clean_metric(name) for name in dict.fromkeys(n for n, _, _ in numbers)}
        left: dict[str, list[Any]] = {
            "params": [Param(key, value) for key, value in flat_params(params or {}).items()],
            "tags": [RunTag(key, value) for key, value in flat_tags(tags or {}).items()],
            "metrics": [
                Metric(names[name], float(value), now, step)
                for name, value, step in numbers
                if not math.isnan(value)
            ],
        }
        if description is not None:
            text = shortened(redact_text(description), LONGEST_DESCRIPTION)
            left["tags"].append(RunTag(DESCRIPTION_TAG, text))
        while any(left.values()):
            batch = {kind: entries[: MOST_AT_ONCE[kind]] for kind, entries in left.items()}
            left = {kind: entries[MOST_AT_ONCE[kind] :] for kind, entries in left.items()}
            with explained(self._uri):
                self._client.log_batch(self.run_id, **batch)

    def log_params(self, settings: Mapping[str, Any]) -> None:
        """Record nested settings; see :meth:`log`."""
        self.log(params=settings)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Record numbers; see :meth:`log`."""
        self.log(metrics=metrics)

    def log_dataset(
        self, name: str, digest: str, source: str, profile: Mapping[str, object]
    ) -> None:
        """Record what the run has read, so that runs on the same data are found.

        Args:
            name: of the data set.
            digest: hash of its content, at most 36 characters.
            source: where it is, freed of secrets.
            profile: what else is known, such as counts.

        Raises:
            TrackingError: MLflow failed.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        place = json.dumps({"uri": redact_text(source)})
        data = Dataset(redact_text(name), digest, "cldmray", place, None, json.dumps(profile))
        context = InputTag("mlflow.data.context", "evaluation")
        with explained(self._uri):
            self._client.log_inputs(self.run_id, [DatasetInput(data, [context])])

    def log_tables(self, tables: Mapping[str, pa.Table]) -> None:
        """Record tables that MLflow's page shows, and lays beside those of other runs.

        All tables of a run are recorded by one call: ``MlflowClient.log_table`` takes ten commits
        for each.

        Args:
            tables: of numbers and texts, by the name of their artifact, which ends with ``.json``;
                secrets must not be in them.

        Raises:
            TrackingError: MLflow failed.
        """
        from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

        self.log_files(
            {
                name: table.to_pandas().to_json(orient="split", index=False).encode()
                for name, table in tables.items()
            }
        )
        listed = json.dumps([{"path": name, "type": "table"} for name in tables])
        with explained(self._uri):
            self._client.set_tag(self.run_id, MLFLOW_LOGGED_ARTIFACTS, listed)

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
