"""What carries the leak: ``python jobs/attribute_leak.py [attribution.scales=[0,1]] ...``"""

import hydra
from omegaconf import DictConfig

from cldmray.cli.runtime import announce, connected, run_or_exit


def main(composed: DictConfig) -> None:
    """Check everything, run the attribution, write and track what it found."""
    from datetime import UTC, datetime

    from cldmray import storage
    from cldmray.config.attribution import build_attribution
    from cldmray.config.instantiate import plain
    from cldmray.gallery.vector_index import load_faiss
    from cldmray.pipelines.attribution_study import AttributionStudy
    from cldmray.report.html import render_attribution
    from cldmray.report.terminal import print_attribution
    from cldmray.results.attribution import attribution_table, write_attribution
    from cldmray.tracking import DeferredErrors
    from cldmray.tracking.layouts import record_attribution

    config = build_attribution(composed)
    settings = config.audit.audit
    load_faiss()
    folders = {"cache_dir": config.audit.cache_dir, "output": config.audit.output}
    tracker = connected(config.audit.tracking, config.audit.engine, **folders)
    seeds = {"audit": settings.seed, "splits": config.audit.splits.seed}
    about = settings.title, plain(composed), seeds
    with DeferredErrors() as cache_dir, tracker.study_run("attribution", *about) as run:
        study = AttributionStudy(config, announce).run()
        found, output = study.attribution, config.audit.output
        written = write_attribution(found, output)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        text = render_attribution(found, settings.title, created, study.notes)
        page = storage.join(output, "attribution.html")
        storage.write_bytes(page, text.encode())
        cache_dir.written(output)
        files = {uri.rsplit("/", 1)[-1]: storage.read_bytes(uri) for uri in [*written, page]}
        tags = {"headline": found.headline, "data_fingerprint": study.data_fingerprint}
        record_attribution(run, attribution_table(found.rows), tags, files)
    print_attribution(found, study.notes)
    print(f"\nReport: {page}\nMLflow: {tracker.shown_uri}, run {run.run_id}")
    cache_dir.end()


@hydra.main(config_path="../conf", config_name="attribute", version_base="1.3")
def cli(composed: DictConfig) -> None:
    run_or_exit(main, composed)


if __name__ == "__main__":
    cli()
