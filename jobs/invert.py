"""Can it be turned back? ``python jobs/invert.py [reconstruction.search.trials=20] ...``"""

import hydra
from omegaconf import DictConfig

from cldmray.cli.runtime import announce, connected, run_or_exit


def main(composed: DictConfig) -> None:
    """Check everything, run the inversion, write and track what it found."""
    from datetime import UTC, datetime

    from cldmray import storage
    from cldmray.config.instantiate import plain
    from cldmray.config.reconstruction import build_reconstruction
    from cldmray.gallery.vector_index import load_faiss
    from cldmray.pipelines.reconstruction_study import ReconstructionStudy
    from cldmray.report.html import render_reconstruction
    from cldmray.report.reconstruction_figures import reconstruction_figures
    from cldmray.report.terminal import print_reconstruction
    from cldmray.results.reconstruction import reconstruction_table, write_reconstruction
    from cldmray.tracking import DeferredErrors
    from cldmray.tracking.layouts import record_reconstruction

    config = build_reconstruction(composed)
    settings, output = config.audit.audit, config.audit.output
    load_faiss()
    folders = {"cache_dir": config.audit.cache_dir, "output": output}
    tracker = connected(config.audit.tracking, config.audit.engine, **folders)
    seeds = {"audit": settings.seed, "splits": config.audit.splits.seed}
    about = settings.title, plain(composed), seeds
    with DeferredErrors() as cache_dir, tracker.study_run("reconstruction", *about) as run:
        found = ReconstructionStudy(config, announce).run()
        figures = reconstruction_figures(found)
        written = write_reconstruction(found, output)
        files = {uri.rsplit("/", 1)[-1]: storage.read_bytes(uri) for uri in written}
        for name, png in figures.items():
            storage.write_bytes(storage.join(output, "figures", f"{name}.png"), png)
        faceless = {f"{n}.png": png for n, png in figures.items() if not n.startswith("images")}
        created = datetime.now(UTC).isoformat(timespec="seconds")
        page = storage.join(output, "reconstruction.html")
        storage.write_bytes(
            page, render_reconstruction(found, settings.title, created, figures).encode()
        )
        cache_dir.written(output)
        tags = {"headline": found.headline, "data_fingerprint": found.data_fingerprint}
        trials = [
            {"anonymizer": one.anonymizer, **trial._asdict()}
            for one in found.searches
            for trial in one.trials
        ]
        learning = [one._asdict() for one in found.learning]
        rows = reconstruction_table(found.rows)
        record_reconstruction(
            tracker,
            run,
            rows=rows,
            learning=learning,
            trials=trials,
            tags=tags,
            files=files | faceless,
        )
    print_reconstruction(found)
    print(f"\nReport: {page}\nMLflow: {tracker.shown_uri}, run {run.run_id}")
    cache_dir.end()


@hydra.main(config_path="../conf", config_name="invert", version_base="1.3")
def cli(composed: DictConfig) -> None:
    run_or_exit(main, composed)


if __name__ == "__main__":
    cli()
