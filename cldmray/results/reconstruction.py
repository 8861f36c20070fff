"""What reconstruction attacks recover: rows, verdicts, trials, and the files that hold them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from cldmray import storage
from cldmray.arrays import Interval
from cldmray.results.audit import Finding, Grid
from cldmray.results.schema import SCHEMA_VERSION, finite, stamped, table_of

SHUFFLED = "-shuffled"
"""Ends the name of the label-permutation control, which learns from shuffled pairs."""


@dataclass(frozen=True)
class ReconstructionRow:
    """One number of a reconstruction study.

    Attributes:
        anonymizer: whose images were reconstructed.
        reconstructor: by which model; ``raw`` for the images as they are.
        gallery: as in docs/results_files.md; empty where none is searched.
        measure: ``rank_1`` (Full-Ref, by the held-out recognizer), ``rank_1_gain``, ``psnr`` (dB)
            or ``ssim``.
        value, low, high: and its confidence bounds over identities.
        n_probes, n_identities: that it was measured on.
        queries: anonymized images that the reconstruction model has learnt from.
        compared_with: the reconstruction model that a gain is over.
        chance: what chance reaches, where that has a meaning.
    """

    anonymizer: str
    reconstructor: str
    gallery: str
    measure: str
    value: float
    low: float
    high: float
    n_probes: int
    n_identities: int
    queries: int = 0
    compared_with: str = ""
    chance: float | None = None


@dataclass(frozen=True)
class ReconstructionVerdict:
    """Whether one reconstruction recovers people, in one gallery.

    Attributes:
        anonymizer, reconstructor, gallery: which.
        rank_1: of the reconstructions, Full-Ref, in 0..1.
        raw: of the anonymized images as they are.
        chance: of chance.
        gain_over_raw: paired gain over ``raw``, in -1..1.
        control: name of the control with the highest rate.
        gain_over_controls: paired gain over each control, by its name.
        queries: anonymized images that were learnt from.
    """

    anonymizer: str
    reconstructor: str
    gallery: str
    rank_1: Interval
    raw: Interval
    chance: float
    gain_over_raw: Interval
    control: str
    gain_over_controls: dict[str, Interval]
    queries: int

    @property
    def best_control_gain(self) -> Interval:
        """Paired gain over the control with the highest rate."""
        return self.gain_over_controls[self.control]

    @property
    def above_controls(self) -> bool:
        """Whether it identifies significantly more than every control does."""
        return all(gain.low > 0 for gain in self.gain_over_controls.values())

    @property
    def recovers(self) -> bool:
        """Whether it is significantly above all controls and above the unreconstructed images.

        A reconstruction that leaves the images alone beats the controls wherever the anonymizer
        lets something through (k-same: up to 1/k), though it brings nothing back.
        """
        return self.above_controls and self.gain_over_raw.low > 0

    @property
    def verdict(self) -> str:
        """``significantly above all controls``, ``not above the unreconstructed images`` or
        ``not above all controls``.
        """
        if self.recovers:
            return "significantly above all controls"
        if self.above_controls:
            return "not above the unreconstructed images"
        return "not above all controls"

    @property
    def finding(self) -> Finding:
        """The verdict in the terms of audits, which have colours."""
        if self.recovers:
            return "leak"
        return "inconclusive" if self.above_controls else "no_leak_found"


class Trial(NamedTuple):
    """One trial of a search.

    Attributes:
        trial, status, settings, queries, steps, objective, validation_rank_1, validation_cosine,
            seconds: see ``engine.tuning.TRIALS``; ``settings`` is read.
        curve: learning curve.
        best, optimal: whether it has the best objective, and whether no other trial identifies more
            validation people with as few queries.
    """

    trial: str
    status: str
    settings: dict[str, Any]
    queries: int
    steps: int
    objective: float
    validation_rank_1: float
    validation_cosine: float
    seconds: float
    curve: list[dict[str, float]]
    best: bool
    optimal: bool


class Learning(NamedTuple):
    """How one reconstruction against one anonymizer has learnt.

    Attributes:
        anonymizer, reconstructor: which.
        points: of the learning curve in order of ``step``; one alone where nothing is trained.
    """

    anonymizer: str
    reconstructor: str
    points: list[dict[str, float]]


class Search(NamedTuple):
    """A search against one anonymizer.

    Attributes:
        anonymizer: its name.
        objective: ``margin``, ``cosine`` or ``rank_1``, on validation people.
        trials: best first.
        key: of the best settings among the attackers of an audit.
        yaml: these, as a file of the group ``attackers``.
    """

    anonymizer: str
    objective: str
    trials: list[Trial]
    key: str
    yaml: str


@dataclass(frozen=True)
class ReconstructionReport:
    """What was found.

    Attributes:
        rows: all numbers.
        results: verdicts, the headline's gallery first.
        learning: curves of all reconstruction models and controls, on validation people.
        searches: one for each anonymizer, if any.
        grids: images of each anonymizer, by its name; people of the run.
        notes: caveats, one sentence each.
        confidence_level: of the bounds, in (0, 1).
        held_out_recognizer: that identified people.
        data_fingerprint: hash of the images.
        headline: the answer in one sentence.
    """

    rows: list[ReconstructionRow]
    results: list[ReconstructionVerdict]
    learning: list[Learning] = field(default_factory=list)
    searches: list[Search] = field(default_factory=list)
    grids: dict[str, Grid] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    confidence_level: float = 0.95
    held_out_recognizer: str = ""
    data_fingerprint: str = ""
    headline: str = ""


RECONSTRUCTION = pa.schema(
    [
        pa.field("anonymizer", pa.string(), nullable=False),
        pa.field("reconstructor", pa.string(), nullable=False),
        pa.field("gallery", pa.string(), nullable=False),
        pa.field("measure", pa.string(), nullable=False),
        pa.field("compared_with", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("ci_low", pa.float64(), nullable=False),
        pa.field("ci_high", pa.float64(), nullable=False),
        pa.field("n_probes", pa.int64(), nullable=False),
        pa.field("n_identities", pa.int64(), nullable=False),
        pa.field("queries", pa.int64(), nullable=False),
        pa.field("chance", pa.float64()),
    ]
)
"""Rows of :class:`~cldmray.results.reconstruction.ReconstructionRow`."""


def reconstruction_table(rows: Sequence[ReconstructionRow]) -> pa.Table:
    """The rows as a table of schema :data:`RECONSTRUCTION`."""
    return table_of(rows, RECONSTRUCTION)


LEARNING = pa.schema(
    [
        pa.field("anonymizer", pa.string(), nullable=False),
        pa.field("reconstructor", pa.string(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),
        pa.field("queries", pa.int64(), nullable=False),
        pa.field("loss", pa.float64()),
        pa.field("validation_rank_1", pa.float64()),
        pa.field("validation_cosine", pa.float64()),
        pa.field("validation_margin", pa.float64()),
        pa.field("validation_difference", pa.float64()),
    ]
)
"""One row a point of the learning curves; null for what was not measured."""


def learning_table(curves: Sequence[Learning]) -> pa.Table:
    """The points of all curves as a table of schema :data:`LEARNING`."""
    rows = [
        {"anonymizer": curve.anonymizer, "reconstructor": curve.reconstructor, **finite(point)}
        for curve in curves
        for point in curve.points
    ]
    return pa.Table.from_pylist(rows, LEARNING)


def reconstruction_json(report: ReconstructionReport) -> str:
    """Headline, verdicts and rows for programs."""
    whole = {
        "schema_version": SCHEMA_VERSION,
        "headline": report.headline,
        "confidence_level": report.confidence_level,
        "held_out_recognizer": report.held_out_recognizer,
        "verdicts": [
            {
                "anonymizer": result.anonymizer,
                "reconstructor": result.reconstructor,
                "gallery": result.gallery,
                "verdict": result.verdict,
                "control": result.control,
                "queries": result.queries,
            }
            for result in report.results
        ],
        "rows": reconstruction_table(report.rows).to_pylist(),
        "notes": report.notes,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def trials_table(searches: Sequence[Search]) -> pa.Table:
    """One row a trial of all searches; ``settings`` and ``curve`` as JSON."""
    rows = [
        {
            "anonymizer": search.anonymizer,
            **trial._asdict(),
            "settings": json.dumps(trial.settings, sort_keys=True),
            "curve": json.dumps(trial.curve),
        }
        for search in searches
        for trial in search.trials
    ]
    return pa.Table.from_pylist(rows)


def write_reconstruction(report: ReconstructionReport, folder_uri: str) -> list[str]:
    """Write every file of a reconstruction study; returns their URIs.

    ``reconstruction.parquet``, ``learning.parquet``, ``reconstruction.json`` and, after a search,
    ``trials.parquet`` and the best settings of each search.

    The best settings are ``conf/attackers/<key>.yaml``.
    """
    tables = {
        "reconstruction.parquet": reconstruction_table(report.rows),
        "learning.parquet": learning_table(report.learning),
    }
    files = {"reconstruction.json": reconstruction_json(report).encode()}
    if report.searches:
        tables["trials.parquet"] = trials_table(report.searches)
    for search in report.searches:
        files[f"conf/attackers/{search.key}.yaml"] = search.yaml.encode()
    for name, table in tables.items():
        storage.write_table(storage.join(folder_uri, name), stamped(table))
    for name, content in files.items():
        storage.write_bytes(storage.join(folder_uri, name), content)
    return [storage.join(folder_uri, name) for name in (*tables, *files)]
