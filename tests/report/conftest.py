"""A complete report with made-up numbers, labelled as such."""

import numpy as np
import pyarrow as pa
import pytest

from cldmray.faces.records import REJECTED
from cldmray.results.audit import (
    AnonymizerRisk,
    AuditReport,
    CmcCurve,
    DetCurve,
    Grid,
    GridRow,
    StageRecord,
    Verdict,
)
from cldmray.results.table import RESULTS

GALLERY = 120
PROBES = 960
RANKS = [1, 2, 3, 5, 10, 20, 50, 100]
RISKS = {
    "no_op": (0.9812, 0.9630, 0.9927, "pretrained"),
    "cldm-canny-1.0": (0.6127, 0.5702, 0.6531, "adaptive_contrastive"),
    "cldm-canny-1.0+depth-0.7": (0.5483, 0.5069, 0.5911, "score_fusion"),
    "cldm-depth-0.5": (0.1243, 0.0981, 0.1519, "adaptive_contrastive"),
    "k_same": (0.0417, 0.0298, 0.0561, "clean_trained"),
    "blur": (0.0156, 0.0061, 0.0262, "condition_match"),
    "cldm-none": (0.0104, 0.0042, 0.0187, "adaptive_contrastive"),
}
MEASURES = ("rank_1", "rank_5", "rank_10", "mean_reciprocal_rank", "eer", "tmr_at_fmr_1e-3")


def risk(name: str) -> AnonymizerRisk:
    value, low, high, attacker = RISKS[name]
    note = "Attacker too weak to conclude: 31 % on clean images, 80 % required." * (name == "blur")
    return AnonymizerRisk(
        anonymizer=name,
        risk=value,
        low=low,
        high=high,
        attacker=attacker,
        protocol="full_ref",
        gallery="source_excluded",
        chance=1 / GALLERY,
        k_not_rejected=min(GALLERY, int(1 / low)),
        confidence_level=0.95,
        gallery_size=GALLERY,
        note=note,
    )


def curve(name: str) -> CmcCurve:
    first, _, _, attacker = RISKS[name]
    chance = [min(1.0, rank / GALLERY) for rank in RANKS]
    rates = [max(c, 1 - (1 - first) * (1 - c) ** 3) if first > 0.02 else c for c in chance]
    rates[0] = first
    return CmcCurve(name, attacker, "full_ref", "source_excluded", RANKS, rates, chance)


def results() -> pa.Table:
    rows = []
    for name, (value, low, high, strongest) in RISKS.items():
        for attacker in sorted({"pretrained", "condition_match", strongest}):
            for gallery in ("source_excluded", "source_included"):
                for index, measure in enumerate(MEASURES):
                    scale = (1.0 if attacker == strongest else 0.71) / (1 + index / 7)
                    rows.append(
                        {
                            "anonymizer": name,
                            "attacker": attacker,
                            "protocol": "full_ref",
                            "gallery": gallery,
                            "level": "image",
                            "subset": "all",
                            "measure": measure,
                            "value": value * scale,
                            "ci_low": low * scale,
                            "ci_high": high * scale,
                            "n_probes": PROBES,
                            "n_identities": GALLERY,
                            "gallery_size": GALLERY,
                            "n_non_mated": 0,
                            "reason": None,
                            "chance": 1 / GALLERY,
                        }
                    )
    return pa.Table.from_pylist(rows[::-1], schema=RESULTS)


def faces(count: int, size: int, seed: int) -> np.ndarray:
    """Drawn ovals with eyes and a mouth, enough to see what a grid looks like."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    images = []
    for _ in range(count):
        skin, back = rng.integers(90, 240, 3), rng.integers(30, 200, 3)
        width, height = rng.uniform(0.22, 0.32), rng.uniform(0.33, 0.42)
        image = np.where(
            (((x - 0.5) / width) ** 2 + ((y - 0.5) / height) ** 2 < 1)[..., None], skin, back
        )
        for eye in (-1, 1):
            near = (x - 0.5 - eye * width / 2.2) ** 2 + (y - 0.42) ** 2 < 0.0015
            image = np.where(near[..., None], 20, image)
        mouth = (abs(x - 0.5) < width / 2.5) & (abs(y - 0.68) < rng.uniform(0.01, 0.03))
        images.append(np.where(mouth[..., None], [150, 40, 50], image))
    return np.stack(images).astype(np.uint8)


def edges(images: np.ndarray) -> np.ndarray:
    grey = images.mean(axis=3)
    steps = abs(np.diff(grey, axis=1, prepend=grey[:, :1])) + abs(
        np.diff(grey, axis=2, prepend=grey[:, :, :1])
    )
    return np.repeat(np.where(steps > 12, 255, 0).astype(np.uint8)[..., None], 3, axis=3)


def grid() -> Grid:
    originals = faces(7, 64, 0)
    return Grid(
        originals,
        [
            GridRow("cldm-canny-1.0", edges(originals), faces(7, 64, 1)),
            GridRow("cldm-canny-1.0+depth-0.7", edges(originals), faces(7, 64, 2)),
            GridRow("blur", None, originals // 2 + 60),
        ],
    )


@pytest.fixture
def report() -> AuditReport:
    return demo_report()


def demo_report() -> AuditReport:
    rejected = [
        ("anna/001.jpg", "anna", "truncated file"),
        ("anna/<script>alert(1)</script>.png", "<b>anna</b>", "not an image"),
        ("zoë & co/портрет 7.jpeg", "zoë & co", "truncated file"),
    ]
    return AuditReport(
        title="DEMO with made-up numbers: holiday images 2026",
        created="2026-03-01T14:05:00+00:00",
        verdict=Verdict(
            sentence="Do not publish the images of cldm-canny-1.0: an attacker who can query "
            "the anonymizer names the person in 61 of 100 images; chance would be 1 of 100.",
            machine={"severity": "leak", "publish": False, "target_k": 10, "risk": 0.6127},
        ),
        risks=[risk(name) for name in reversed(RISKS)],
        results=results(),
        curves=[curve(name) for name in RISKS],
        det=[
            DetCurve(
                name,
                *RISKS[name][3:],
                "full_ref",
                "source_excluded",
                "verification",
                [0.001, 0.1, 1.0],
                [0.9, 0.5, 0.0],
            )
            for name in RISKS
        ],
        grid=grid(),
        rejected=pa.Table.from_pylist(
            [
                {"sample_id": f"{i:016x}", "identity": identity, "location": where, "reason": why}
                for i, (where, identity, why) in enumerate(rejected)
            ],
            schema=REJECTED,
        ),
        n_listed=1203,
        settings={
            "faces": {"source": "folder", "root": "s3://key:hidden@bucket/images", "limit": None},
            "attackers": {"adaptive_contrastive": {"encoder": {"batch": 128}}},
            "tracking": {"password": "swordfish", "uri": "sqlite:///mlflow.db"},
            "seed": 7,
        },
        versions={"cldmray": "0.1.0", "torch": "2.9.0", "commit": "abc1234"},
        stages=[
            StageRecord("list faces", 0.42, 1203, False),
            StageRecord("anonymize", 754.0, 8400, True),
            StageRecord("train attackers", 4325.0, 6, False),
            StageRecord("score", 38.0, 252, False),
        ],
        notes=["All numbers on this page are made up to show the layout."],
        data_fingerprint="9f3c1a77b2e04d58",
    )
