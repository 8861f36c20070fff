"""The report that MLflow gets shows and names nobody."""

from dataclasses import fields

import numpy as np
import pyarrow as pa

from cldmray.faces.records import REJECTED
from cldmray.pipelines.jobs import without_identities
from cldmray.report.html import render_html
from cldmray.results.audit import AuditReport, Evidence, Grid, GridRow
from cldmray.results.exposed import EXPOSED, ExposedIdentity
from tests.tracking.test_audits import report

HELD_BACK = {"grid", "evidence", "rejected", "exposed", "exposed_identities"}
PUBLIC = {
    "title", "created", "verdict", "risks", "results", "curves", "det", "n_listed", "settings",
    "versions", "stages", "notes", "data_fingerprint", "utility", "diagnostics", "attribution",
    "untouched", "data", "learning", "command", "mlflow", "inference", "memorization",
}  # fmt: skip
"""Parts of a report that hold rates, settings and hashes only."""


def test_whether_a_part_is_public_was_decided_for_each() -> None:
    assert {part.name for part in fields(AuditReport)} == HELD_BACK | PUBLIC


def test_no_image_and_no_name_is_left() -> None:
    images = np.zeros((1, 8, 8, 3), np.uint8)
    exposed = {
        "anonymizer": "blur", "protocol": "full_ref", "gallery": "source_excluded",
        "identity": "Ada_Lovelace", "sample_id": "0" * 16, "n_attackers": 1, "n_identified": 1,
        "attackers": ["pretrained"],
    }  # fmt: skip
    rejected = {
        "sample_id": "0" * 16, "identity": "Ada_Lovelace",
        "location": "Ada_Lovelace/Ada_Lovelace_0001.jpg", "reason": "no face",
    }  # fmt: skip
    whole = report(
        grid=Grid(images, [GridRow("blur", None, images)]),
        evidence=[
            Evidence(
                "blur", "pretrained", "full_ref", "source_excluded", images[0], images[0], images,
                mated=(True,), scores=(0.9,), rank=1, margin=0.1,
            )
        ],
        rejected=pa.Table.from_pylist([rejected], REJECTED),
        exposed=pa.Table.from_pylist([exposed], EXPOSED),
        exposed_identities=[
            ExposedIdentity(
                anonymizer="blur", gallery="source_excluded", identity="Ada_Lovelace",
                attacker="pretrained", protocol="full_ref", n_images=1, n_identified=1.0,
                share=1.0, ci_low=0.5, ci_high=1.0, chance=0.1, n_attackers=1,
                n_identified_by_any=1,
            )
        ],
    )  # fmt: skip
    public = without_identities(whole)
    assert not len(public.grid.originals) and not public.grid.rows
    assert public.evidence == [] and public.exposed is None and public.exposed_identities == []
    page = render_html(public)
    assert "no face" in page and "blur leaks identity" in page
    for name in ("Ada", "Lovelace"):
        assert name in str(whole) and name not in str(public) and name not in page
