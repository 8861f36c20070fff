"""Verdicts by hand, tables and figures that open, a page that escapes."""

import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cldmray.arrays import Interval
from cldmray.report.figures.reconstruction import reconstruction_figures
from cldmray.report.formatting import points
from cldmray.report.html import render_reconstruction
from cldmray.report.statements import reconstruction_headline, reconstruction_sentence
from cldmray.report.terminal import print_reconstruction
from cldmray.results.audit import Grid, GridRow
from cldmray.results.reconstruction import (
    LEARNING,
    RECONSTRUCTION,
    Learning,
    ReconstructionReport,
    ReconstructionRow,
    ReconstructionVerdict,
    Search,
    Trial,
    reconstruction_table,
    write_reconstruction,
)

HEADLINE = "Identity is recovered."
UP, FLAT, DOWN = Interval(0.2, 0.1, 0.3), Interval(0.1, -0.1, 0.3), Interval(-0.2, -0.3, -0.1)


def recovery(
    gain_over_raw: Interval = UP, name: str = "unet", **controls: Interval
) -> ReconstructionVerdict:
    gains = controls or {"mean_face": UP, "shuffled": Interval(0.15, 0.05, 0.25)}
    best = min(gains, key=lambda key: gains[key].value)
    rates = Interval(0.4, 0.3, 0.5), Interval(0.2, 0.1, 0.3)
    return ReconstructionVerdict(
        "a<b", name, "source_excluded", *rates, 0.1, gain_over_raw, best, gains, 1234
    )


def report() -> ReconstructionReport:
    rows = [
        ReconstructionRow(
            "a<b", "unet", "source_excluded", "rank_1", 0.4, 0.3, 0.5, 9, 3, 1234, chance=0.1
        ),
        ReconstructionRow(
            "a<b", "unet", "source_excluded", "rank_1_gain", 0.2, 0.1, 0.3, 9, 3, 1234, "raw"
        ),
        ReconstructionRow("a<b", "unet", "", "psnr", 20.0, 19.0, 21.0, 9, 3, 1234),
    ]
    curve = [{"step": 2.0, "loss": 1.0}]
    trial = Trial("t1", "finished", {"blocks": 1}, 50, 2, 0.5, 0.3, 0.5, 1.0, curve, True, True)
    failed = Trial("t2", "failed", {"blocks": 2}, 0, 0, -1.0, 0.0, 0.0, 0.0, [], False, False)
    search = Search("a<b", "cosine", [trial, failed], "reconstruction_best", "x: 1\n")
    images = np.zeros((2, 8, 8, 3), np.uint8)
    grid = Grid(images, [GridRow("raw", None, images), GridRow("unet", None, images)])
    points = [
        {"step": 2.0, "queries": 5.0, "loss": 1.0, "validation_rank_1": 0.1},
        {"step": 4.0, "queries": 5.0, "loss": 0.5, "validation_rank_1": float("nan")},
    ]
    still = [{"step": 0.0, "queries": 5.0, "loss": float("nan"), "validation_rank_1": 0.2}]
    learning = [Learning("a<b", "unet", points), Learning("a<b", "mean_face", still)]
    searches, grids = [search], {"a<b": grid}
    return ReconstructionReport(
        rows, [recovery()], learning, searches, grids, ["A note."], 0.95, "dlib", "f00d", HEADLINE
    )


class TestVerdicts:
    def test_every_control_must_be_beaten(self) -> None:
        assert recovery().verdict == "significantly above all controls"
        assert recovery(mean_face=UP, shuffled=FLAT).verdict == "not above all controls"
        assert recovery(mean_face=Interval(0.1, 0.0, 0.2)).verdict == "not above all controls"

    def test_the_images_as_they_are_must_be_beaten(self) -> None:
        assert recovery(UP).verdict == "significantly above all controls"
        assert (
            recovery(FLAT).verdict
            == recovery(DOWN).verdict
            == "not above the unreconstructed images"
        )
        assert recovery(UP, mean_face=FLAT).verdict == "not above all controls"
        assert not recovery(FLAT).recovers

    def test_their_colours(self) -> None:
        results = [recovery(), recovery(FLAT), recovery(mean_face=FLAT)]
        assert [result.finding for result in results] == ["leak", "inconclusive", "no_leak_found"]

    def test_the_sentence(self) -> None:
        assert reconstruction_sentence(recovery()) == (
            "unet on a<b (source excluded): significantly above all controls. "
            "40.0 % [30.0, 50.0] of the reconstructions are identified, +15.0 [5.0, 25.0] points "
            "over the best control, shuffled, and +20.0 [10.0, 30.0] points over the "
            "unreconstructed images (20.0 %); chance: 10.0 %; 1,234 queries."
        )
        assert points(DOWN) == "-20.0 [-30.0, -10.0]"

    def test_the_headline(self) -> None:
        nothing = reconstruction_headline(ReconstructionReport([], []))
        assert nothing == "Nothing was reconstructed; see the notes."

        def headline(*results: ReconstructionVerdict) -> str:
            report = ReconstructionReport([], list(results), held_out_recognizer="dlib")
            return reconstruction_headline(report)

        assert headline(recovery(mean_face=FLAT)) == (
            "No identity is recovered by the one reconstruction (by dlib, Full-Ref, source "
            "excluded). Of the unreconstructed images at most 20.0 % are identified."
        )
        assert headline(recovery(mean_face=FLAT), recovery(mean_face=FLAT)).startswith(
            "No identity is recovered by any of 2 reconstructions (by dlib,"
        )
        assert headline(recovery(), recovery(mean_face=FLAT)) == (
            "Identity is recovered by 1 of 2 reconstructions (by dlib, Full-Ref, source excluded): "
            "unet on a<b makes 40.0 % identifiable, where the best control reaches 25.0 % and the "
            "unreconstructed images 20.0 %."
        )


def test_files(tmp_path: Path) -> None:
    results = report()
    written = write_reconstruction(results, str(tmp_path))
    assert [Path(uri).relative_to(tmp_path).as_posix() for uri in written] == [
        "reconstruction.parquet", "learning.parquet", "trials.parquet", "reconstruction.json",
        "conf/attackers/reconstruction_best.yaml",
    ]  # fmt: skip
    table = pq.read_table(tmp_path / "reconstruction.parquet")
    assert table.schema.equals(RECONSTRUCTION)
    assert table.equals(reconstruction_table(results.rows))
    learning = pq.read_table(tmp_path / "learning.parquet")
    assert learning.schema.equals(LEARNING)
    assert learning.select(["reconstructor", "step", "loss", "validation_rank_1"]).to_pylist() == [
        {"reconstructor": "unet", "step": 2, "loss": 1.0, "validation_rank_1": 0.1},
        {"reconstructor": "unet", "step": 4, "loss": 0.5, "validation_rank_1": None},
        {"reconstructor": "mean_face", "step": 0, "loss": None, "validation_rank_1": 0.2},
    ]
    trials = pq.read_table(tmp_path / "trials.parquet").to_pylist()
    assert [json.loads(row["settings"]) for row in trials] == [{"blocks": 1}, {"blocks": 2}]
    assert json.loads(trials[0]["curve"]) == [{"step": 2.0, "loss": 1.0}]
    whole = json.loads((tmp_path / "reconstruction.json").read_text())
    assert whole["headline"] == results.headline
    assert whole["verdicts"][0]["verdict"] == "significantly above all controls"
    assert whole["rows"] == table.to_pylist()


def test_figures_and_page() -> None:
    results = report()
    figures = reconstruction_figures(results)
    assert set(figures) == {"rates.svg", "learning.svg", "queries.svg", "images_0.png"}
    Image.open(io.BytesIO(figures["images_0.png"])).verify()
    drawn = [ET.fromstring(figure) for name, figure in figures.items() if name.endswith(".svg")]
    assert len(drawn) == 3
    page = render_reconstruction(results, "T<", "2026-01-01T00:00:00", figures)
    assert "a&lt;b" in page and "<bdi>a<b" not in page
    assert page.count("data:image/png;base64,") == 1 and page.count("<svg") == 3
    assert "+20.0 [10.0, 30.0]" in page
    assert reconstruction_figures(ReconstructionReport([], [])) == {}
    untrained = ReconstructionReport(
        [], [], [Learning("a", "mean_face", results.learning[1].points)]
    )
    assert reconstruction_figures(untrained) == {}


def test_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_reconstruction(report())
    printed = " ".join(capsys.readouterr().out.split())
    assert report().headline in printed
    assert reconstruction_sentence(report().results[0]) in printed
    assert "2 trials, best cosine on validation people 0.500 with 50 queries (trial t1)" in printed
    assert "Note: A note." in printed
