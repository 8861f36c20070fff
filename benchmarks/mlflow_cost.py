"""What it costs to record an audit in MLflow, beside the least that as many runs cost.

    python benchmarks/mlflow_cost.py RUN [--repeats 3] [--out DIR]

RUN is the output folder of a finished audit. It is recorded as an audit records it
(:func:`cldmray.tracking.audit_layout.record_audit`): a parent run, and a child for each attacker on
each anonymizer, without learning curves. The floor is as many runs of MLflow that are opened, get
one metric and are closed. Both write to SQLite in a new folder. The ratio of the two is what the
parameters, metrics, tables, descriptions and artifacts of an audit cost, in runs.

Prints a summary and writes ``mlflow_cost.json``.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cldmray.results.audit import AuditReport
from cldmray.results.files import read_audit
from cldmray.tracking import Tracker, TrackingConfig
from cldmray.tracking.audit_layout import AttackLog, AuditedData, record_audit

Record = Callable[[Tracker, AuditReport], None]


def pairs(report: AuditReport) -> list[tuple[str, str]]:
    """Anonymizer and attacker of each child."""
    rows = report.results.select(["anonymizer", "attacker"]).to_pylist()
    return sorted({(row["anonymizer"], row["attacker"]) for row in rows})


def recorded(tracker: Tracker, report: AuditReport) -> None:
    """Record the audit as an audit does."""
    settings = report.settings
    with tracker.job_run("audit", report.title, settings) as run:
        record_audit(
            tracker,
            run,
            report=report,
            attacks=[AttackLog(*pair) for pair in pairs(report)],
            data=AuditedData("benchmark", "benchmark", report.data_fingerprint),
            tags={"verdict": report.verdict.sentence},
            files={},
            page="<p>benchmark</p>",
        )


def floor(tracker: Tracker, report: AuditReport) -> None:
    """As many runs with a metric each."""
    with tracker.job_run("floor", report.title, {}) as run:
        run.log_metrics({"value": 1.0})
        for pair in pairs(report):
            with tracker.child_run(run, *pair) as child:
                child.log_metrics({"value": 1.0})


def seconds(record: Record, report: AuditReport) -> float:
    """Wall time of one recording; the database is made, and MLflow imported, before."""
    with tempfile.TemporaryDirectory() as folder:
        tracker = Tracker(TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"))
        with tracker.job_run("warm-up", "warm-up", {}):
            pass
        started = time.perf_counter()
        record(tracker, report)
        return time.perf_counter() - started


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("run", help="output folder of a finished audit")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--out", type=Path, default=Path("mlflow_cost"))
    options = arguments.parse_args()
    report = read_audit(options.run)
    # One after the other, so that both meet the same load of the machine.
    times = [(seconds(recorded, report), seconds(floor, report)) for _ in range(options.repeats)]
    whole, least = (statistics.median(part) for part in zip(*times, strict=True))
    children = len(pairs(report))
    outcome = {
        "children": children,
        "seconds": whole,
        "seconds_per_child": whole / children,
        "floor_seconds": least,
        "ratio": whole / least,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(outcome, indent=1) + "\n"
    (options.out / "mlflow_cost.json").write_text(text, "utf-8")
    print(
        f"{children} children: {whole:.1f} s, {1000 * whole / children:.0f} ms a child; as many "
        f"runs with one metric: {least:.1f} s; ratio {whole / least:.1f}"
    )


if __name__ == "__main__":
    main()
