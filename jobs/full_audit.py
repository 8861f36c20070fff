"""Audit face anonymizers: ``python jobs/full_audit.py [faces=lfw] [anonymizers=[no_op,blur]] ...``

Exit status: 0 passed or nothing to fail on, 3 the audit ran and ``audit.fail_on`` holds, 1 it could
not run or not be recorded in MLflow (2: an option is unknown). The last line of its output is the
verdict: ``CLDMRAY_VERDICT {...}``, JSON.
"""

import hydra
from omegaconf import DictConfig

from cldmray.cli.runtime import GATE_FAILED, announce, connected, run_or_exit


def main(composed: DictConfig) -> int:
    """Check everything, run the audit, write and track its report; returns the exit status."""
    from cldmray import storage
    from cldmray.config.audit import build_audit
    from cldmray.config.instantiate import plain
    from cldmray.evaluation.decision import verdict_tags
    from cldmray.gallery.vector_index import load_faiss
    from cldmray.pipelines.audit import Audit
    from cldmray.report.terminal import print_report, verdict_line
    from cldmray.report.utility import utility_metrics
    from cldmray.report.write import write_report
    from cldmray.tracking import DeferredErrors, package_versions
    from cldmray.tracking.layouts import record_audit

    config = build_audit(composed)
    settings = plain(composed)
    load_faiss()
    tracker = connected(
        config.tracking, config.engine, cache_dir=config.cache_dir, output=config.output
    )
    if config.audit.dry_run:
        Audit(config, settings, announce).plan()
        return 0
    seeds = {"audit": config.audit.seed, "splits": config.splits.seed}
    title = config.audit.title
    with DeferredErrors() as cache_dir, tracker.audit_run(title, settings, seeds=seeds) as run:
        outcome = Audit(config, settings, announce).run(package_versions())
        report, judged = outcome.report, outcome.report.verdict
        written = write_report(report, config.output)
        cache_dir.written(config.output)
        tables = ("results.parquet", "utility.parquet")
        public = [uri for uri in written if uri.endswith((".json", *tables))]
        risks = {f"risk/{risk.anonymizer}": risk.risk for risk in report.risks}
        record_audit(
            tracker,
            run,
            results=report.results,
            metrics=risks | utility_metrics(report.utility),
            curves=outcome.found.curves,
            clean=outcome.found.clean,
            weights=outcome.found.weights,
            queries=outcome.found.queries,
            tags=verdict_tags(judged) | {"data_fingerprint": report.data_fingerprint},
            files={uri.rsplit("/", 1)[-1]: storage.read_bytes(uri) for uri in public},
        )
    print_report(report)
    print(f"\nReport: {written[-1]}\nMLflow: {tracker.shown_uri}, run {run.run_id}")
    print(verdict_line(judged), flush=True)
    cache_dir.end()
    return GATE_FAILED if judged.gate.outcome == "failed" else 0


@hydra.main(config_path="../conf", config_name="audit", version_base="1.3")
def cli(composed: DictConfig) -> None:
    run_or_exit(main, composed)


if __name__ == "__main__":
    cli()
