"""How a finished training is laid out in MLflow: learning curves, sample pictures, its card."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from cldmray.tracking.run import Run


def record_training(
    run: Run,
    curves: Mapping[str, Sequence[Mapping[str, float]]],
    files: Mapping[str, bytes],
) -> None:
    """Write what a training learnt to its open run.

    Args:
        run: the training's run.
        curves: by phase, points with ``step`` and further numbers; metrics ``<phase>/<number>``.
        files: artifacts by name. Grids of people who must not be shown do not belong there.

    Raises:
        TrackingError: MLflow failed.
    """
    for phase, curve in curves.items():
        for point in curve:
            numbers = {f"{phase}/{key}": value for key, value in point.items() if key != "step"}
            run.log_metrics(numbers, step=int(point["step"]))
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        run.log_folder(folder)
