"""What inversion recovers, as tables and as the files that hold them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import pyarrow as pa

from cldmray import storage
from cldmray.report.inversion import InversionReport, Learning, Row, Search

INVERSION = pa.schema(
    [
        pa.field("anonymizer", pa.string(), nullable=False),
        pa.field("inverter", pa.string(), nullable=False),
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
"""Rows of :class:`~cldmray.report.inversion.Row`."""


def inversion_table(rows: Sequence[Row]) -> pa.Table:
    """The rows as a table of schema :data:`INVERSION`."""
    names = {"low": "ci_low", "high": "ci_high"}
    records = [{names.get(k, k): v for k, v in asdict(row).items()} for row in rows]
    return pa.Table.from_pylist(records, INVERSION)


LEARNING = pa.schema(
    [
        pa.field("anonymizer", pa.string(), nullable=False),
        pa.field("inverter", pa.string(), nullable=False),
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
        {"anonymizer": one.anonymizer, "inverter": one.inverter, **_finite(point)}
        for one in curves
        for point in one.points
    ]
    return pa.Table.from_pylist(rows, LEARNING)


def _finite(point: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in point.items() if math.isfinite(value)}


def inversion_json(found: InversionReport) -> str:
    """Headline, verdicts and rows for programs."""
    whole = {
        "headline": found.headline,
        "level": found.level,
        "judge": found.judge,
        "verdicts": [
            {
                "anonymizer": one.anonymizer,
                "inverter": one.inverter,
                "gallery": one.gallery,
                "verdict": one.verdict,
                "control": one.control,
                "queries": one.queries,
            }
            for one in found.recoveries
        ],
        "rows": inversion_table(found.rows).to_pylist(),
        "notes": found.notes,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def trials_table(searches: Sequence[Search]) -> pa.Table:
    """One row a trial of all searches; ``settings`` and ``curve`` as JSON."""
    rows = [
        {
            "anonymizer": one.anonymizer,
            **trial._asdict(),
            "settings": json.dumps(trial.settings, sort_keys=True),
            "curve": json.dumps(trial.curve),
        }
        for one in searches
        for trial in one.trials
    ]
    return pa.Table.from_pylist(rows)


def write_inversion(found: InversionReport, folder_uri: str) -> list[str]:
    """Write ``inversion.parquet``, ``learning.parquet``, ``inversion.json`` and, after a search,
    ``trials.parquet`` and the best settings of each search; returns their URIs.

    The best settings are ``conf/attack/<key>.yaml``.
    """
    tables = {
        "inversion.parquet": inversion_table(found.rows),
        "learning.parquet": learning_table(found.learning),
    }
    files = {"inversion.json": inversion_json(found).encode()}
    if found.searches:
        tables["trials.parquet"] = trials_table(found.searches)
    for one in found.searches:
        files[f"conf/attack/{one.key}.yaml"] = one.yaml.encode()
    for name, table in tables.items():
        storage.write_table(storage.join(folder_uri, name), table)
    for name, content in files.items():
        storage.write_bytes(storage.join(folder_uri, name), content)
    return [storage.join(folder_uri, name) for name in (*tables, *files)]
