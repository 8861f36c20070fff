"""Every file of a finished audit, written and read again."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from cldmray import storage
from cldmray.arrays import Images
from cldmray.errors import BadInputError, StorageError, redact
from cldmray.results.attribution import (
    Attribution,
    AttributionRow,
    write_attribution,
)
from cldmray.results.audit import (
    AnonymizerRisk,
    AttackerDiagnostics,
    AuditReport,
    CmcCurve,
    DataSummary,
    DetCurve,
    Evidence,
    Grid,
    GridRow,
    LearningCurve,
    StageRecord,
    UtilityRow,
    Verdict,
)
from cldmray.results.content import InferenceRow, Memorization, UntouchedFaces
from cldmray.results.exposed import ExposedIdentity, exposed_identities_table
from cldmray.results.schema import SCHEMA_VERSION, check_version, stamped
from cldmray.results.table import write_results, write_utility

Record = TypeVar("Record")

IMAGES = pa.schema(
    [
        pa.field("place", pa.int64(), nullable=False),
        pa.field("anonymizer", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
    ]
)
"""Example images as PNG; see docs/results_files.md."""
EVIDENCE = pa.schema(
    [
        pa.field("anonymizer", pa.string(), nullable=False),
        pa.field("attacker", pa.string(), nullable=False),
        pa.field("protocol", pa.string(), nullable=False),
        pa.field("gallery", pa.string(), nullable=False),
        pa.field("anonymized", pa.binary(), nullable=False),
        pa.field("original", pa.binary(), nullable=False),
        pa.field("matches", pa.list_(pa.binary()), nullable=False),
        pa.field("mated", pa.list_(pa.bool_()), nullable=False),
        pa.field("scores", pa.list_(pa.float64()), nullable=False),
        pa.field("rank", pa.int64(), nullable=False),
        pa.field("margin", pa.float64(), nullable=False),
    ]
)
"""Best matches of example images, as PNG; fields of :class:`cldmray.results.audit.Evidence`."""
LISTS: dict[str, Any] = {
    "risks": list[AnonymizerRisk],
    "curves": list[CmcCurve],
    "diagnostics": list[AttackerDiagnostics],
    "learning": list[LearningCurve],
    "stages": list[StageRecord],
    "utility": list[UtilityRow],
    "untouched": list[UntouchedFaces],
    "inference": list[InferenceRow],
    "det": list[DetCurve],
    "memorization": list[Memorization],
}
"""Lists of records in ``report.json``, by key; an audit that did not measure one lacks it."""
JSON_FIELDS = (
    "title",
    "created",
    "n_listed",
    "settings",
    "versions",
    "notes",
    "data_fingerprint",
    "command",
    "mlflow",
)
"""Fields of an :class:`AuditReport` that are JSON as they are."""


def write_audit(report: AuditReport, folder_uri: str) -> list[str]:
    """Write all tables, the example images and, last, ``report.json``.

    Of the CMC curves those of the strongest attacks are kept, which the report shows. Secrets in
    texts are masked.

    Args:
        report: the finished audit.
        folder_uri: local path, ``s3://`` or ``gs://``; created if absent.

    Returns:
        URIs of the files.

    Raises:
        BadInputError: a table is malformed; ``report.json`` is not written then.
    """
    written = write_results(report.results, folder_uri)
    written += write_utility(report.utility, folder_uri)
    if report.attribution is not None:
        written += write_attribution(report.attribution, folder_uri)
    tables = {"rejected.parquet": report.rejected}
    if len(report.grid.originals):
        tables["images.parquet"] = images_table(report.grid)
    if report.exposed is not None:
        tables["exposed.parquet"] = report.exposed
        tables["exposed_identities.parquet"] = exposed_identities_table(report.exposed_identities)
    if report.evidence:
        tables["evidence.parquet"] = evidence_table(report.evidence)
    for name, table in tables.items():
        written.append(storage.join(folder_uri, name))
        storage.write_table(written[-1], stamped(table))
    written.append(storage.join(folder_uri, "report.json"))
    storage.write_bytes(written[-1], report_json(report).encode())
    return written


def read_audit(folder_uri: str) -> AuditReport:
    """The report of a finished audit, as :func:`write_audit` has kept it.

    Args:
        folder_uri: the audit's output folder, local or remote.

    Raises:
        BadInputError: no audit has finished there, a file is broken, or it was written in another
            schema version; the message names the file.
    """
    uri = storage.join(folder_uri, "report.json")
    try:
        whole = json.loads(storage.read_bytes(uri))
    except (OSError, StorageError, ValueError) as error:
        raise BadInputError(
            f"no finished audit in {folder_uri}: {type(error).__name__} of report.json; give the "
            "output folder that 'cldmray audit' named"
        ) from error
    check_version(uri, whole.get("schema_version"))
    try:
        return AuditReport(
            **{name: whole[name] for name in JSON_FIELDS},
            **{name: _record(kind, whole.get(name, [])) for name, kind in LISTS.items()},
            verdict=_record(Verdict, whole["verdict"]),
            data=_record(DataSummary | None, whole["data"]),
            results=_table(folder_uri, "results.parquet"),
            rejected=_table(folder_uri, "rejected.parquet"),
            attribution=_attribution(whole["attribution"], folder_uri),
            grid=_grid(folder_uri),
            evidence=_evidence(folder_uri),
            exposed=_exposed(folder_uri),
            exposed_identities=_exposed_identities(folder_uri),
        )
    except (KeyError, ValidationError, OSError, StorageError) as error:
        raise BadInputError(f"{uri} is broken: {type(error).__name__}: {error}") from error


def report_json(report: AuditReport) -> str:
    """What no table of the audit holds, as JSON."""
    attribution = report.attribution
    whole = {
        "schema_version": SCHEMA_VERSION,
        **{name: getattr(report, name) for name in JSON_FIELDS},
        **{name: getattr(report, name) for name in LISTS},
        "curves": report.strongest_curves(),
        "verdict": report.verdict,
        "data": report.data,
        "attribution": attribution
        and {
            "headline": attribution.headline,
            "statements": attribution.statements,
            "confidence_level": attribution.confidence_level,
        },
    }
    text = json.dumps(redact(_jsonable(whole)), indent=1, ensure_ascii=False, allow_nan=False)
    return text + "\n"


def images_table(grid: Grid) -> pa.Table:
    """The example images as a table of schema :data:`IMAGES`."""
    sets: list[tuple[str, str, Images]] = [("", "original", grid.originals)]
    for row in grid.rows:
        if row.condition is not None:
            sets.append((row.anonymizer, "condition", row.condition))
        sets.append((row.anonymizer, "anonymized", row.anonymized))
    rows = [
        {"place": place, "anonymizer": anonymizer, "kind": kind, "image": _png(image)}
        for anonymizer, kind, images in sets
        for place, image in enumerate(images)
    ]
    return pa.Table.from_pylist(rows, IMAGES)


def evidence_table(evidence: Sequence[Evidence]) -> pa.Table:
    """The best matches as a table of schema :data:`EVIDENCE`."""
    rows = [
        {
            "anonymizer": item.anonymizer,
            "attacker": item.attacker,
            "protocol": item.protocol,
            "gallery": item.gallery,
            "anonymized": _png(item.anonymized),
            "original": _png(item.original),
            "matches": [_png(image) for image in item.matches],
            "mated": list(item.mated),
            "scores": list(item.scores),
            "rank": item.rank,
            "margin": item.margin,
        }
        for item in evidence
    ]
    return pa.Table.from_pylist(rows, EVIDENCE)


def _jsonable(value: Any) -> Any:
    """Records as mappings of their fields, tuples as lists."""
    if is_dataclass(value):
        return {field.name: _jsonable(getattr(value, field.name)) for field in fields(value)}
    if hasattr(value, "_asdict"):
        return _jsonable(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_jsonable(item) for item in value]
    return value


def _record(kind: Any, value: Any) -> Any:
    return TypeAdapter(kind).validate_python(value)


def _table(folder_uri: str, name: str) -> pa.Table:
    return storage.read_table(storage.join(folder_uri, name)).replace_schema_metadata(None)


def _rows(kind: type[Record], folder_uri: str, name: str) -> list[Record]:
    """Rows of a table as records; none where the file is absent."""
    if not storage.exists(storage.join(folder_uri, name)):
        return []
    table = _table(folder_uri, name)
    bounds = {"ci_low": "low", "ci_high": "high"}
    table = table.rename_columns([bounds.get(column, column) for column in table.column_names])
    return [kind(**row) for row in table.to_pylist()]


def _attribution(texts: Mapping[str, Any] | None, folder_uri: str) -> Attribution | None:
    if texts is None:
        return None
    return Attribution(
        texts["headline"],
        [
            replace(row, value=math.nan, low=math.nan, high=math.nan) if row.reason else row
            for row in _rows(AttributionRow, folder_uri, "attribution.parquet")
        ],
        texts["statements"],
        texts["confidence_level"],
    )


def _grid(folder_uri: str) -> Grid:
    if not storage.exists(storage.join(folder_uri, "images.parquet")):
        return Grid(np.zeros((0, 1, 1, 3), np.uint8), [])
    images: dict[tuple[str, str], list[Images]] = {}
    for row in _table(folder_uri, "images.parquet").to_pylist():
        images.setdefault((row["anonymizer"], row["kind"]), []).append(_decoded(row["image"]))
    stacks = {key: np.stack(items) for key, items in images.items()}
    names = dict.fromkeys(name for name, _ in stacks if name)
    return Grid(
        stacks["", "original"],
        [
            GridRow(name, stacks.get((name, "condition")), stacks[name, "anonymized"])
            for name in names
        ],
    )


def _evidence(folder_uri: str) -> list[Evidence]:
    if not storage.exists(storage.join(folder_uri, "evidence.parquet")):
        return []
    return [
        Evidence(
            row["anonymizer"],
            row["attacker"],
            row["protocol"],
            row["gallery"],
            _decoded(row["anonymized"]),
            _decoded(row["original"]),
            np.stack([_decoded(image) for image in row["matches"]]),
            tuple(row["mated"]),
            tuple(row["scores"]),
            row["rank"],
            row["margin"],
        )
        for row in _table(folder_uri, "evidence.parquet").to_pylist()
    ]


def _exposed(folder_uri: str) -> pa.Table | None:
    if not storage.exists(storage.join(folder_uri, "exposed.parquet")):
        return None
    return _table(folder_uri, "exposed.parquet")


def _exposed_identities(folder_uri: str) -> list[ExposedIdentity]:
    if not storage.exists(storage.join(folder_uri, "exposed_identities.parquet")):
        return []
    rows = _table(folder_uri, "exposed_identities.parquet").to_pylist()
    return [ExposedIdentity(**row) for row in rows]


def _png(image: Images) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _decoded(content: bytes) -> Images:
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB"))
