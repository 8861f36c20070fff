"""How a finished audit is laid out in MLflow: a parent run and one child for each attack."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from cldmray.tracking.run import Run
from cldmray.tracking.runs import Tracker

Attack = tuple[str, str]
"""Anonymizer and attacker, by their names in tables."""


def record(
    tracker: Tracker,
    run: Run,
    results: pa.Table,
    metrics: Mapping[str, float],
    curves: Mapping[Attack, Sequence[Sequence[Mapping[str, float]]]],
    clear: Mapping[Attack, float],
    weights: Mapping[Attack, Mapping[str, float]],
    tags: Mapping[str, object],
    files: Mapping[str, bytes],
    queries: Mapping[Attack, int] | None = None,
) -> None:
    """Write an audit's findings below its open parent run.

    Args:
        run: the parent run.
        results: all rows, schema ``records.RESULTS``; each child gets those of its attack.
        metrics: of the parent, such as ``risk/blur`` and ``utility/blur/ssim``.
        curves: learning curves of each attack, one a training, none for those that learn nothing:
            points with ``step`` and further numbers.
        clear: rank-1 rate on clear photographs of each attack that has one.
        weights: of the parts of each attack that is a fusion.
        tags: words about the audit: verdict, data fingerprint.
        files: artifacts of the parent by name. Pictures of people do not belong there.
        queries: how often each attack that says so has asked the anonymizer.

    Raises:
        TrackingError: MLflow failed.
    """
    run.set_tags(tags)
    run.log_metrics(metrics)
    run.log_files(files)
    for key, trainings in curves.items():
        anonymizer, attacker = key
        chosen = pc.and_(
            pc.equal(results["anonymizer"], anonymizer), pc.equal(results["attacker"], attacker)
        )
        with tracker.child_run(run, anonymizer, attacker) as child:
            child.log_results(results.filter(chosen))
            if (rate := clear.get((anonymizer, attacker))) is not None:
                child.log_metrics({"clear_rank_1": rate})
            if queries and key in queries:
                child.log_metrics({"queries": queries[key]})
            child.log_metrics({f"weight/{k}": v for k, v in weights.get(key, {}).items()})
            for training, curve in enumerate(trainings):
                child.log_curve(f"training_{training}" if training else "training", curve)
