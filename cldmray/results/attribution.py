"""Why it leaks, as rows and sentences, and as the files that hold them."""

import json
from dataclasses import dataclass, field
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from cldmray import storage
from cldmray.results.schema import SCHEMA_VERSION, finite, stamped, table_of

Question = Literal["swap", "ablation", "scale", "proxy", "region", "operating_point"]
QUESTIONS: tuple[Question, ...] = get_args(Question)

ATTRIBUTION = pa.schema(
    [
        pa.field("question", pa.string(), nullable=False),
        pa.field("anonymizer", pa.string(), nullable=False),
        pa.field("compared_with", pa.string(), nullable=False),
        pa.field("attacker", pa.string(), nullable=False),
        pa.field("protocol", pa.string(), nullable=False),
        pa.field("gallery", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("measure", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("ci_low", pa.float64()),
        pa.field("ci_high", pa.float64()),
        pa.field("n_probes", pa.int64(), nullable=False),
        pa.field("chance", pa.float64()),
        pa.field("reason", pa.string()),
    ]
)
"""Rows of :class:`AttributionRow`; bounds may be infinite."""


@dataclass(frozen=True)
class AttributionRow:
    """One number of an attribution.

    Attributes:
        question: which of docs/measures.md it answers.
        anonymizer, attacker, protocol, gallery: as in docs/results_files.md; empty where
            they do not matter.
        measure: ``rank_1``, ``rank_1_condition``, ``condition_share``, ...
        value, low, high: and its confidence bounds; NaN, null in tables, where there is a reason.
        n_probes: images that it was measured on.
        compared_with: the other setting or attacker of a difference or ratio.
        subset: ``all``, or ``region=face`` for masked probes.
        chance: what chance reaches, where that has a meaning.
        reason: why there is no value; None where there is one.
    """

    question: Question
    anonymizer: str
    attacker: str
    protocol: str
    gallery: str
    measure: str
    value: float
    low: float
    high: float
    n_probes: int
    compared_with: str = ""
    subset: str = "all"
    chance: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Attribution:
    """What carries the leak.

    Attributes:
        headline: the answer in one sentence.
        rows: all numbers.
        statements: what follows from them, a sentence each.
        confidence_level: of the bounds, in (0, 1).
    """

    headline: str
    rows: list[AttributionRow]
    statements: list[str] = field(default_factory=list)
    confidence_level: float = 0.95

    def of(self, question: Question) -> list[AttributionRow]:
        """The rows of one question, in order."""
        return [row for row in self.rows if row.question == question]


def attribution_table(rows: list[AttributionRow]) -> pa.Table:
    """The rows as a table of schema :data:`ATTRIBUTION`."""
    table = table_of(rows, ATTRIBUTION)
    for name in ("value", "ci_low", "ci_high"):
        numbers = pc.if_else(pc.is_nan(table[name]), pa.scalar(None, pa.float64()), table[name])
        table = table.set_column(
            table.schema.get_field_index(name), ATTRIBUTION.field(name), numbers
        )
    return table


def attribution_json(attribution: Attribution) -> str:
    """Headline, statements and rows for programs; an infinite bound is null."""
    whole = {
        "schema_version": SCHEMA_VERSION,
        "headline": attribution.headline,
        "statements": attribution.statements,
        "confidence_level": attribution.confidence_level,
        "rows": [finite(row) for row in attribution_table(attribution.rows).to_pylist()],
    }
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_attribution(attribution: Attribution, folder_uri: str) -> list[str]:
    """Write ``attribution.parquet`` and ``attribution.json`` into a folder; returns their URIs."""
    table, text = (
        storage.join(folder_uri, f"attribution.{ending}") for ending in ("parquet", "json")
    )
    storage.write_table(table, stamped(attribution_table(attribution.rows)))
    storage.write_bytes(text, attribution_json(attribution).encode())
    return [table, text]
