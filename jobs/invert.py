"""Can it be turned back? ``python jobs/invert.py [inversion.search.trials=20] ...``"""

import hydra
from omegaconf import DictConfig

from cldmray.cli.runtime import announce, connected, run_or_exit


def main(composed: DictConfig) -> None:
    """Check everything, run the inversion, write and track what it found."""
    from datetime import UTC, datetime

    from cldmray import storage
    from cldmray.config.instantiate import plain
    from cldmray.config.reconstruction import build_inversion
    from cldmray.gallery.index import load_faiss
    from cldmray.pipelines.reconstruction_study import InversionStudy
    from cldmray.report.html import render_inversion
    from cldmray.report.reconstruction_figures import inversion_figures
    from cldmray.report.terminal import print_inversion
    from cldmray.results.reconstruction import inversion_table, write_inversion
    from cldmray.tracking import Survival
    from cldmray.tracking.layouts import record_inversion

    config = build_inversion(composed)
    settings, output = config.audit.audit, config.audit.output
    load_faiss()
    folders = {"work": config.audit.work, "output": output}
    tracker = connected(config.audit.tracking, config.audit.engine, **folders)
    seeds = {"audit": settings.seed, "splits": config.audit.splits.seed}
    about = settings.title, plain(composed), seeds
    with Survival() as work, tracker.study_run("inversion", *about) as run:
        found = InversionStudy(config, announce).run()
        figures = inversion_figures(found)
        written = write_inversion(found, output)
        files = {uri.rsplit("/", 1)[-1]: storage.read_bytes(uri) for uri in written}
        for name, png in figures.items():
            storage.write_bytes(storage.join(output, "figures", f"{name}.png"), png)
        faceless = {f"{n}.png": png for n, png in figures.items() if not n.startswith("pictures")}
        created = datetime.now(UTC).isoformat(timespec="seconds")
        page = storage.join(output, "inversion.html")
        storage.write_bytes(
            page, render_inversion(found, settings.title, created, figures).encode()
        )
        work.written(output)
        tags = {"headline": found.headline, "data_fingerprint": found.data_fingerprint}
        trials = [
            {"anonymizer": one.anonymizer, **trial._asdict()}
            for one in found.searches
            for trial in one.trials
        ]
        learning = [one._asdict() for one in found.learning]
        rows = inversion_table(found.rows)
        record_inversion(tracker, run, rows, learning, trials, tags, files | faceless)
    print_inversion(found)
    print(f"\nReport: {page}\nMLflow: {tracker.shown_uri}, run {run.run_id}")
    work.end()


@hydra.main(config_path="../conf", config_name="invert", version_base="1.3")
def cli(composed: DictConfig) -> None:
    run_or_exit(main, composed)


if __name__ == "__main__":
    cli()
