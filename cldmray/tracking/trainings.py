"""How a finished training is laid out in MLflow: learning curves, sample pictures, its card."""

from collections.abc import Mapping, Sequence

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
        run.log_curve(phase, curve)
    run.log_files(files)
