"""Whole jobs: check, join the cluster, run a pipeline, write its report and record it in MLflow.

The command ``cldmray``, the scripts in ``jobs/`` and the Python API all call these functions.
"""

import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow as pa

from cldmray import storage
from cldmray.config.attribution import AttributionConfig
from cldmray.config.audit import AuditConfig, refuse_dry_run
from cldmray.config.reconstruction import ReconstructionConfig
from cldmray.engine.cluster import EngineConfig
from cldmray.errors import BadInputError, ConfigError, redact_text
from cldmray.results.attribution import Attribution
from cldmray.results.audit import AnonymizerRisk, AuditReport, Grid, Verdict
from cldmray.results.reconstruction import ReconstructionReport
from cldmray.tracking import DeferredErrors, Run, Tracker, TrackingConfig
from cldmray.tracking.connection import URI_VARIABLE

if TYPE_CHECKING:
    import pandas

    from cldmray.pipelines.attack_runner import AttackResults
    from cldmray.tracking.audit_layout import AttackLog, AuditedData

Settings = Mapping[str, Any]
"""A composed configuration as plain data."""


@dataclass(frozen=True)
class JobResult:
    """What every job returns.

    Attributes:
        page: URI of the HTML report.
        mlflow: URI without secrets and run id of the record in MLflow; None: nothing was recorded,
            or, in the Python API, MLflow failed after the report was written.
    """

    page: str
    mlflow: tuple[str, str] | None
    _deferred: DeferredErrors = field(repr=False)

    @property
    def places(self) -> str:
        """Where the report and the record are, a line each, without secrets."""
        lines = [f"Report: {redact_text(self.page)}"]
        if self.mlflow is not None:
            lines.append("MLflow: {}, run {}".format(*self.mlflow))
        return "\n".join(lines)

    def raise_tracking_error(self) -> None:
        """Raise the failure of MLflow that came after the report was written, if there was one.

        Raises:
            TrackingError: the message says where the report is and how it is recorded later.
        """
        self._deferred.end()


@dataclass(frozen=True)
class AuditResult(JobResult):
    """A finished audit: its table, its verdict and its report.

    Attributes:
        record: everything that the report shows.
    """

    record: AuditReport

    @property
    def table(self) -> "pandas.DataFrame":
        """The rows of ``results.parquet``: one a measure of an attack on an anonymizer."""
        return self.record.results.to_pandas()

    @property
    def verdict(self) -> Verdict:
        """The answer: ``verdict.sentence`` for people, ``verdict.machine`` for programs."""
        return self.record.verdict

    def risk(self, anonymizer: str) -> AnonymizerRisk:
        """The strongest attack on an anonymizer, by its name in tables.

        Raises:
            BadInputError: no such anonymizer was attacked; the message lists those that were.
        """
        risks = {risk.anonymizer: risk for risk in self.record.risks}
        if anonymizer not in risks:
            raise BadInputError(
                f"no anonymizer is called {anonymizer!r}; there are {', '.join(risks) or 'none'}"
            )
        return risks[anonymizer]

    def report(self, path: str) -> None:
        """Write the HTML page to a file, local or remote."""
        from cldmray.report.html import write_html

        write_html(self.record, path)


@dataclass(frozen=True)
class AttributionResult(JobResult):
    """A finished attribution.

    Attributes:
        record: what carries the leak.
        notes: caveats for the reader, one sentence each.
    """

    record: Attribution
    notes: list[str]

    @property
    def table(self) -> "pandas.DataFrame":
        """The rows of ``attribution.parquet``."""
        from cldmray.results.attribution import attribution_table

        return attribution_table(self.record.rows).to_pandas()


@dataclass(frozen=True)
class ReconstructionResult(JobResult):
    """A finished study of reconstruction attacks.

    Attributes:
        record: what was reconstructed, and how well.
    """

    record: ReconstructionReport

    @property
    def table(self) -> "pandas.DataFrame":
        """The rows of ``reconstruction.parquet``."""
        from cldmray.results.reconstruction import reconstruction_table

        return reconstruction_table(self.record.rows).to_pandas()


@overload
def connected(tracking: TrackingConfig, engine: EngineConfig | None, **folders: str) -> Tracker: ...
@overload
def connected(
    tracking: TrackingConfig | None, engine: EngineConfig | None, **folders: str
) -> Tracker | None: ...
def connected(
    tracking: TrackingConfig | None, engine: EngineConfig | None, **folders: str
) -> Tracker | None:
    """The tracker of a job, which is found to work before the job connects to its cluster.

    Args:
        tracking: where runs are recorded; None records nothing.
        engine: the cluster; None joins none.
        folders: where the job will write, by the settings that name them; found writable first.

    Raises:
        StorageError: a folder cannot be written.
        TrackingError: MLflow cannot be used.
        ConfigError: see :func:`cldmray.engine.cluster.prepare`; or a submitted job would keep its
            results on one of several machines, because nothing says where they go.
    """
    from cldmray.engine import cluster

    for key, folder in folders.items():
        storage.check_writable(key, folder)
    tracker = None if tracking is None else Tracker(tracking)
    if tracker is not None:
        tracker.check()
    if engine is None:
        return tracker
    cluster.prepare(engine)
    if storage.in_job_package():
        cluster.start()
        _check_shared(cluster.n_machines(), tracker, folders)
    return tracker


def _check_shared(n_machines: int, tracker: Tracker | None, folders: Mapping[str, str]) -> None:
    """Refuse a submitted job whose default places lie on one of several machines."""
    if n_machines == 1:
        return
    lost = [key for key, folder in folders.items() if storage.is_in_job_root(folder)]
    cures = [f"{storage.ROOT_VARIABLE} to s3://, gs:// or a shared disk"] if lost else []
    if tracker is not None and tracker.is_default:
        lost.append("tracking.uri")
        cures.append(f"{URI_VARIABLE} to an MLflow server, http://...")
    if lost:
        raise ConfigError(
            f"{', '.join(lost)}: the default lies on one of the {n_machines} machines of this "
            f"cluster, where the others and the next job may not find it; set {' and '.join(cures)}"
        )


def _joined(audit: AuditConfig, **folders: str) -> Tracker | None:
    """The tracker of an audit or a study, once everything that it needs is found to be there."""
    from cldmray.gallery.vector_index import load_faiss

    _refuse_output_among_faces(audit)
    load_faiss()
    return connected(audit.tracking, audit.engine, cache_dir=audit.cache_dir, **folders)


def _refuse_output_among_faces(audit: AuditConfig) -> None:
    """Refuse to write images where a source would list them as images of a new person.

    Raises:
        ConfigError: the output lies in the folder of a source.
    """
    for key, source in {"faces": audit.faces, **audit.further_sources}.items():
        root = getattr(source, "root", None)
        if root and storage.is_within(audit.output, root):
            raise ConfigError(
                f"output: {audit.output} lies in the folder of {key} ({root}), which would list "
                "what is written there as images of people; choose a folder outside of it"
            )


def plan_audit(config: AuditConfig, settings: Settings) -> None:
    """Check everything and say what the audit would do, at which cost.

    Raises:
        CldmrayError: the audit could not run; the message names the key, file or package.
    """
    from cldmray.pipelines.audit import Audit

    _joined(config)
    Audit(config, dict(settings)).plan()


def run_anonymization(config: AuditConfig) -> list[str]:
    """Write the images that an audit would attack as files, one folder an anonymizer.

    Each folder has a ``manifest.csv`` of originals and anonymized files, which
    :class:`~cldmray.anonymizers.precomputed.Precomputed` takes as its table.

    Returns:
        The folders.

    Raises:
        CldmrayError: the audit could not run; the message names the key, file or package.
    """
    from pyarrow import csv

    from cldmray.engine.map_stages.export import export_images
    from cldmray.engine.stages import Stages
    from cldmray.pipelines.data_preparation import DataPreparation

    refuse_dry_run(config)
    _refuse_output_among_faces(config)
    connected(None, config.engine, cache_dir=config.cache_dir, output=config.output)
    stages = Stages(config.cache_dir)
    preparation = DataPreparation(config, stages)
    preparation.check()
    listing = preparation.listing()
    columns = (listing.samples[name].to_pylist() for name in ("sample_id", "location"))
    locations = dict(zip(*columns, strict=True))
    folders = []
    with stages:
        images = preparation.run(listing)
        for key, table in images.anonymized.items():
            folder = storage.join(config.output, config.anonymizers[key].name)
            manifest = export_images(table, locations, config.faces.name, config.engine, folder)
            sink = pa.BufferOutputStream()
            csv.write_csv(manifest, sink)
            storage.write_bytes(storage.join(folder, "manifest.csv"), sink.getvalue().to_pybytes())
            folders.append(folder)
    return folders


def run_audit(config: AuditConfig, settings: Settings) -> AuditResult:
    """Audit anonymizers: anonymize, attack, measure, write the report and record it.

    Raises:
        CldmrayError: the audit cannot run, or ``audit.dry_run`` asks for a plan; the message names
            the key, file or package.
    """
    if config.audit.dry_run:
        raise ConfigError("audit.dry_run: this runs an audit; the command cldmray plan plans it")
    from cldmray.pipelines.audit import Audit
    from cldmray.report.html import render_html, write_report
    from cldmray.report.verdict import verdict_tags
    from cldmray.tracking import code_commit, package_versions
    from cldmray.tracking.audit_layout import PUBLIC_FILES, record_audit

    with _opened("audit", config, settings) as job:
        versions = package_versions() | {"commit": code_commit()}
        outcome = Audit(config, dict(settings)).run(versions)
        report = replace(
            outcome.report,
            command=_command(),
            mlflow="{}, run {}".format(*job.place) if job.place else "",
        )
        written = write_report(report, config.output)
        job.deferred.written(config.output)
        if job.tracked is not None:
            names = {uri: uri.removeprefix(f"{config.output.rstrip('/')}/") for uri in written}
            figures = {
                name.removeprefix("figures/"): storage.read_bytes(uri)
                for uri, name in names.items()
                if name.startswith("figures/")
            }
            record_audit(
                *job.tracked,
                report=report,
                attacks=_attack_logs(config, settings, outcome.results),
                data=_audited_data(config, settings, report),
                tags=verdict_tags(report.verdict),
                files={n: storage.read_bytes(u) for u, n in names.items() if n in PUBLIC_FILES},
                page=render_html(without_identities(report), figures),
            )
    return AuditResult(written[-1], job.place, job.deferred, report)


def run_attribution(config: AttributionConfig, settings: Settings) -> AttributionResult:
    """Find out what carries the leak, write the page and record it.

    Raises:
        CldmrayError: the study cannot run; the message names the key, file or package.
    """
    from cldmray.pipelines.attribution_study import AttributionStudy
    from cldmray.report.html import render_attribution
    from cldmray.results.attribution import attribution_table, write_attribution
    from cldmray.tracking.layouts import record_attribution

    audit, output = config.audit, config.audit.output
    with _opened("attribution", audit, settings) as job:
        study = AttributionStudy(config).run()
        attribution = study.attribution
        written = write_attribution(attribution, output)
        page = storage.join(output, "attribution.html")
        text = render_attribution(attribution, audit.audit.title, _now(), study.notes)
        storage.write_bytes(page, text.encode())
        job.deferred.written(output)
        if job.tracked is not None:
            _, run = job.tracked
            tags = {
                "headline": attribution.headline,
                "data_fingerprint": study.data_fingerprint,
            }
            rows = attribution_table(attribution.rows)
            record_attribution(run, rows, tags, _contents([*written, page]))
    return AttributionResult(page, job.place, job.deferred, attribution, study.notes)


def run_reconstruction(config: ReconstructionConfig, settings: Settings) -> ReconstructionResult:
    """Try to reconstruct the originals, write the page and record it.

    Raises:
        CldmrayError: the study cannot run; the message names the key, file or package.
    """
    from cldmray.pipelines.reconstruction_study import ReconstructionStudy
    from cldmray.report.figures.reconstruction import reconstruction_figures
    from cldmray.report.html import render_reconstruction
    from cldmray.results.reconstruction import reconstruction_table, write_reconstruction
    from cldmray.tracking.layouts import record_reconstruction

    audit, output = config.audit, config.audit.output
    with _opened("reconstruction", audit, settings) as job:
        report = ReconstructionStudy(config).run()
        figures = reconstruction_figures(report)
        written = write_reconstruction(report, output)
        for name, figure in figures.items():
            storage.write_bytes(storage.join(output, "figures", name), figure)
        page = storage.join(output, "reconstruction.html")
        text = render_reconstruction(report, audit.audit.title, _now(), figures)
        storage.write_bytes(page, text.encode())
        job.deferred.written(output)
        if job.tracked is not None:
            faceless = {name: figure for name, figure in figures.items() if name.endswith(".svg")}
            tags = {"headline": report.headline, "data_fingerprint": report.data_fingerprint}
            trials = [
                {"anonymizer": search.anonymizer, **trial._asdict()}
                for search in report.searches
                for trial in search.trials
            ]
            learning = [point._asdict() for point in report.learning]
            record_reconstruction(
                *job.tracked,
                rows=reconstruction_table(report.rows),
                learning=learning,
                trials=trials,
                tags=tags,
                files=_contents(written) | faceless,
            )
    return ReconstructionResult(page, job.place, job.deferred, report)


@dataclass(frozen=True)
class _OpenJob:
    """A job whose cluster is joined and whose run in MLflow is open.

    Attributes:
        deferred: to be told when the results are written.
        tracked: the tracker and the run; None where nothing is recorded.
    """

    deferred: DeferredErrors
    tracked: tuple[Tracker, Run] | None

    @property
    def place(self) -> tuple[str, str] | None:
        """URI without secrets and run id of the record; None where nothing is recorded."""
        if self.tracked is None:
            return None
        tracker, run = self.tracked
        return tracker.shown_uri, run.run_id


def _attack_logs(
    config: AuditConfig, settings: Settings, results: "AttackResults"
) -> list["AttackLog"]:
    """What MLflow gets of each attack beside its rates."""
    from cldmray.tracking.audit_layout import AttackLog

    anonymizers = {item.name: settings["anonymizers"][k] for k, item in config.anonymizers.items()}
    attackers = {item.name: settings["attackers"][k] for k, item in config.attackers.items()}
    return [
        AttackLog(
            anonymizer,
            attacker,
            anonymizers[anonymizer],
            attackers[attacker],
            curves=curves,
            weights=results.weights.get((anonymizer, attacker), {}),
            queries=results.queries.get((anonymizer, attacker)),
        )
        for (anonymizer, attacker), curves in results.curves.items()
    ]


def _audited_data(config: AuditConfig, settings: Settings, report: AuditReport) -> "AuditedData":
    """The images as MLflow names a data set."""
    from cldmray.tracking.audit_layout import AuditedData

    source = str(getattr(config.faces, "root", type(config.faces).__name__))
    return AuditedData(config.faces.name, source, report.data_fingerprint, settings["faces"])


def without_identities(report: AuditReport) -> AuditReport:
    """The report without what shows or names a person: images, exposed identities, bad files."""
    from cldmray.hashing import identity_hash, safe_location

    names = report.rejected.to_pydict()
    names["identity"] = [identity_hash(name) for name in names["identity"]]
    names["location"] = [safe_location(name) for name in names["location"]]
    rejected = pa.table(names, report.rejected.schema)
    nobody = Grid(np.zeros((0, 1, 1, 3), np.uint8), [])
    return replace(
        report, grid=nobody, evidence=[], rejected=rejected, exposed=None, exposed_identities=[]
    )


@contextmanager
def _opened(kind: str, audit: AuditConfig, settings: Settings) -> Iterator[_OpenJob]:
    """The frame of every job; a failure of MLflow after the results are written ends it quietly.

    Args:
        kind: ``audit``, ``attribution`` or ``reconstruction``.
    """
    tracker = _joined(audit, output=audit.output)
    seeds = {"audit": audit.audit.seed, "splits": audit.splits.seed}
    with DeferredErrors() as deferred:
        if tracker is None:
            yield _OpenJob(deferred, None)
            return
        with tracker.job_run(kind, audit.audit.title, settings, seeds=seeds) as run:
            yield _OpenJob(deferred, (tracker, run))


def _contents(uris: list[str]) -> dict[str, bytes]:
    """Files by their name without folders."""
    return {uri.rsplit("/", 1)[-1]: storage.read_bytes(uri) for uri in uris}


def _command() -> str:
    """How this program was started, to be pasted; empty where it is no program of cldmray."""
    program, options = Path(sys.argv[0]), sys.argv[1:]
    if program.name == "cldmray":
        return shlex.join(["cldmray", *options])
    if program.parent.name == "jobs":
        return shlex.join(["python", f"jobs/{program.name}", *options])
    return ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
