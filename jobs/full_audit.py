"""Audit face anonymizers: ``python jobs/full_audit.py [faces=lfw] [anonymizer=[copy,blur]] ...``"""

import hydra
from omegaconf import DictConfig

from cldmray.command import announce, run_or_exit


def main(composed: DictConfig) -> None:
    """Check everything, run the audit, write and track its report."""
    from cldmray import storage
    from cldmray.audit import Audit
    from cldmray.building import plain
    from cldmray.config import build_audit
    from cldmray.engine.cluster import connect
    from cldmray.gallery.index import load_faiss
    from cldmray.report.terminal import print_report
    from cldmray.report.utility import utility_metrics
    from cldmray.report.write import write_report
    from cldmray.tracking import Tracker, package_versions
    from cldmray.tracking.audits import record

    config = build_audit(composed)
    settings = plain(composed)
    load_faiss()
    tracker = Tracker(config.tracking)
    tracker.check()
    connect(config.engine)
    seeds = {"audit": config.audit.seed, "splits": config.splits.seed}
    with tracker.audit_run(config.audit.title, settings, seeds=seeds) as run:
        outcome = Audit(config, settings, announce).run(package_versions())
        report = outcome.report
        written = write_report(report, config.output)
        tables = ("results.parquet", "utility.parquet")
        public = [uri for uri in written if uri.endswith((".json", *tables))]
        risks = {f"risk/{risk.anonymizer}": risk.risk for risk in report.risks}
        record(
            tracker,
            run,
            results=report.results,
            metrics=risks | utility_metrics(report.utility),
            curves=outcome.curves,
            clear=outcome.clear,
            tags={"verdict": report.verdict.sentence, "data_fingerprint": report.data_fingerprint},
            files={uri.rsplit("/", 1)[-1]: storage.read_bytes(uri) for uri in public},
        )
    print_report(report)
    print(f"\nReport: {written[-1]}\nMLflow: {tracker.shown_uri}, run {run.run_id}")


@hydra.main(config_path="../conf", config_name="audit", version_base="1.3")
def cli(composed: DictConfig) -> None:
    run_or_exit(main, composed)


if __name__ == "__main__":
    cli()
