"""A finished audit is read as it was written, and what cannot be read says so."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cldmray.errors import BadInputError
from cldmray.report.html import render_html
from cldmray.results.attribution import Attribution, AttributionRow
from cldmray.results.audit import (
    AttackerDiagnostics,
    AttackRate,
    AuditReport,
    DataSummary,
    Evidence,
    Grid,
    LearningCurve,
    UtilityRow,
    Verdict,
)
from cldmray.results.decision import Gate, Recommendation
from cldmray.results.exposed import EXPOSED, ExposedIdentity
from cldmray.results.files import IMAGES, read_audit, write_audit
from cldmray.results.schema import KEY, SCHEMA_VERSION
from cldmray.results.table import sorted_results


@pytest.fixture
def whole(report: AuditReport) -> AuditReport:
    """A report in which nothing is left out, and nothing is secret."""
    rate = AttackRate("adaptive_contrastive", "full_ref", "anonymized_only", 0.3, 0.2, 0.4, 0.01)
    risk = replace(report.risks[0], highest_lower_bound=rate, highest_upper_bound=0.9, linkage=rate)
    verdict = Verdict(
        "Identity leaks.",
        {"severity": "leak", "settings": [{"anonymizer": "blur", "k_supported": 9}]},
        Recommendation("blur", "It is best.", "blur", "no_op", {"ssim": {"value": 0.5}}),
        Gate("k<20 or leak", ("blur: leak: it does",)),
    )
    rows = [
        AttributionRow("swap", "canny", "a", "full_ref", "g", "rank_1", 0.5, 0.4, 0.6, 9),
        AttributionRow(
            "ablation", "canny", "a", "full_ref", "g", "carried_share", 0.9, float("-inf"), 1.0, 9,
            "none", chance=0.01,
        ),
    ]  # fmt: skip
    return replace(
        report,
        verdict=verdict,
        risks=[risk, *report.risks[1:]],
        settings={"audit": {"seed": 7, "fail_on": None, "release": ["blur"]}},
        utility=[
            UtilityRow("no_op", "ssim", 1.0, 1.0, 1.0, 9, True, 1.0, 0.2),
            UtilityRow("blur", "frechet_pretrained", 3.0, 2.0, 4.0, 9, False),
        ],
        data=DataSummary("lfw", False, 100, 900, 2400, 0),
        learning=[
            LearningCurve("blur", "adaptive_contrastive", 0, [50, 100], [0.1, 0.5]),
            LearningCurve("blur", "clean_trained", 0, [50, 100], [None, None]),
        ],
        command="cldmray audit",
        mlflow="http://host, run 3f2a",
        diagnostics=[AttackerDiagnostics("blur", "pretrained", 0.97, 0, 0, None, None)],
        attribution=Attribution("The condition.", rows, ["It rises."], 0.9),
    )


def assert_same_images(grid: Grid, other: Grid) -> None:
    assert np.array_equal(grid.originals, other.originals)
    assert [row.anonymizer for row in grid.rows] == [row.anonymizer for row in other.rows]
    for row, same in zip(grid.rows, other.rows, strict=True):
        assert np.array_equal(row.anonymized, same.anonymized)
        assert (row.condition is None) == (same.condition is None)
        assert row.condition is None or np.array_equal(row.condition, same.condition)


def test_a_round_trip_changes_nothing(whole: AuditReport, tmp_path: Path) -> None:
    written = write_audit(whole, str(tmp_path))
    assert sorted(written) == sorted(map(str, tmp_path.iterdir()))
    stored = read_audit(str(tmp_path))
    assert_same_images(stored.grid, whole.grid)
    assert stored.results.equals(sorted_results(whole.results))
    assert stored.rejected.equals(whole.rejected)
    assert stored.curves == whole.strongest_curves()
    left_out = {"grid": whole.grid, "results": None, "rejected": None, "curves": []}
    assert replace(stored, **left_out) == replace(whole, **left_out)
    assert render_html(stored) == render_html(whole)


def test_evidence_is_kept(report: AuditReport, tmp_path: Path) -> None:
    images = np.arange(5 * 8 * 8 * 3, dtype=np.uint8).reshape(5, 8, 8, 3)
    example = Evidence(
        "blur", "pretrained", "full_ref", "source_excluded", images[0], images[1], images[2:],
        (False, True, False), (0.5, 0.4, 0.3), 2, -0.1,
    )  # fmt: skip
    write_audit(replace(report, evidence=[example]), str(tmp_path))
    (stored,) = read_audit(str(tmp_path)).evidence
    np.testing.assert_array_equal(stored.anonymized, example.anonymized)
    np.testing.assert_array_equal(stored.original, example.original)
    np.testing.assert_array_equal(stored.matches, example.matches)
    for name in (
        "anonymizer", "attacker", "protocol", "gallery", "mated", "scores", "rank", "margin",
    ):  # fmt: skip
        assert getattr(stored, name) == getattr(example, name)


def test_exposed_people_are_kept(report: AuditReport, tmp_path: Path) -> None:
    row = ("blur", "full_ref", "source_excluded", "ann", "a1", 2, 1, ["x"])
    images = pa.Table.from_pylist([dict(zip(EXPOSED.names, row, strict=True))], EXPOSED)
    identity = ExposedIdentity(
        "blur", "source_excluded", "ann", "x", "full_ref", 4, 1.5, 0.375, 0.1, 0.7, 0.01, 1, 2
    )
    write_audit(replace(report, exposed=images, exposed_identities=[identity]), str(tmp_path))
    stored = read_audit(str(tmp_path))
    assert stored.exposed is not None and stored.exposed.equals(images)
    assert stored.exposed_identities == [identity]
    write_audit(report, str(tmp_path / "bare"))
    assert read_audit(str(tmp_path / "bare")).exposed is None


def test_what_is_absent_stays_absent(report: AuditReport, tmp_path: Path) -> None:
    bare = replace(report, grid=Grid(np.zeros((0, 8, 8, 3), np.uint8), []))
    write_audit(bare, str(tmp_path))
    stored = read_audit(str(tmp_path))
    assert stored.attribution is None and stored.utility == [] and stored.diagnostics == []
    assert len(stored.grid.originals) == 0 and stored.grid.rows == []
    assert stored.evidence == []
    assert not (tmp_path / "images.parquet").exists()


def test_the_schema_version_is_in_every_file(whole: AuditReport, tmp_path: Path) -> None:
    write_audit(whole, str(tmp_path))
    for name in ("report", "attribution"):
        assert (
            json.loads((tmp_path / f"{name}.json").read_text())["schema_version"] == SCHEMA_VERSION
        )
    tables = list(tmp_path.glob("*.parquet"))
    assert len(tables) == 5
    for path in tables:
        assert pq.read_schema(path).metadata[KEY] == str(SCHEMA_VERSION).encode()
    assert pq.read_schema(tmp_path / "images.parquet").equals(IMAGES)


def test_secrets_are_masked(report: AuditReport, tmp_path: Path) -> None:
    write_audit(report, str(tmp_path))
    text = (tmp_path / "report.json").read_text()
    assert "swordfish" not in text and "key:hidden" not in text


def test_what_cannot_be_read_says_so(whole: AuditReport, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"no finished audit in .*report\.json"):
        read_audit(str(tmp_path))
    write_audit(whole, str(tmp_path))
    page = tmp_path / "report.json"
    content = json.loads(page.read_text())
    page.write_text(json.dumps(content | {"schema_version": 1}))
    with pytest.raises(BadInputError, match="has schema_version 1, not 2"):
        read_audit(str(tmp_path))
    page.write_text(json.dumps(content | {"risks": [{"anonymizer": "blur"}]}))
    with pytest.raises(BadInputError, match="report.json is broken: ValidationError"):
        read_audit(str(tmp_path))
    del content["notes"]
    page.write_text(json.dumps(content))
    with pytest.raises(BadInputError, match="report.json is broken: KeyError: 'notes'"):
        read_audit(str(tmp_path))
