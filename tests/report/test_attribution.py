"""Rows of an attribution in files, on the page and in the terminal."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cldmray.report import formatting
from cldmray.report.figures.attribution import _chains, scale_figure
from cldmray.report.figures.style import on_page
from cldmray.report.html import DESCRIPTIONS, render_attribution, render_html, write_report
from cldmray.report.terminal import print_attribution, print_report
from cldmray.results.attribution import (
    ATTRIBUTION,
    QUESTIONS,
    Attribution,
    AttributionRow,
    attribution_table,
    write_attribution,
)

WHERE = ("canny <b>", "adaptive_contrastive", "full_ref", "source_excluded")
ROWS = [
    AttributionRow("swap", *WHERE, "condition_share", 0.931, 0.874, 0.972, 500),
    AttributionRow("swap", *WHERE, "rank_1_condition", 0.283, 0.231, 0.334, 500, chance=0.01),
    AttributionRow(
        "ablation", *WHERE, "carried_share", 0.912, float("-inf"), 0.955, 500, "cldm-none"
    ),
    AttributionRow(
        "region", *WHERE, "rank_1", 0.1234, 0.1, 0.2, 500, subset="region=face", chance=0.01
    ),
    AttributionRow("operating_point", "canny", "", "", "", "ssim", 0.5678, 0.5, 0.6, 300),
]
ATTRIBUTION_RESULT = Attribution(
    "93.1 % [87.4, 97.2] of the leak & more.", ROWS, ["It rises."], 0.9
)


def test_every_question_and_measure_has_words() -> None:
    assert list(formatting.QUESTION_LABELS) == list(QUESTIONS)
    assert formatting.measured(ROWS[0]) == "93.1 % [87.4, 97.2]"
    assert formatting.measured(ROWS[2]) == "91.2 % [none, 95.5]"
    assert formatting.measured(ROWS[4]) == "0.568 [0.500, 0.600]"


def test_rows_of_a_question() -> None:
    assert ATTRIBUTION_RESULT.of("swap") == ROWS[:2]
    assert ATTRIBUTION_RESULT.of("proxy") == []


class TestScaleFigure:
    def test_nothing_to_compare(self) -> None:
        assert scale_figure(ATTRIBUTION_RESULT) is None
        page = render_attribution(ATTRIBUTION_RESULT, "T", "2026-01-01T00:00:00")
        assert "Risk over the control scale" not in page

    def test_is_drawn_and_shown(self) -> None:
        def rate(name: str, attacker: str, value: float) -> AttributionRow:
            where = (name, attacker, "full_ref", "source_excluded")
            return AttributionRow(
                "ablation", *where, "rank_1", value, value - 0.1, value + 0.1, 9, chance=0.1
            )

        def step(name: str, lower: str) -> AttributionRow:
            where = (name, "x", "full_ref", "source_excluded")
            return AttributionRow("scale", *where, "rank_1_difference", 0.1, 0, 0.2, 9, lower)

        rates = [
            rate(n, a, v) for a in "xy" for n, v in (("none", 0.1), ("c$1", 0.3), ("c$2", 0.6))
        ]
        steps = [step("c$1", "none"), step("c$2", "c$1")]
        drawn = scale_figure(Attribution("", [*rates, *steps]))
        assert drawn and drawn.startswith(b"<?xml")
        higher = [replace(row, value=0.9, high=0.95) for row in rates]
        assert drawn != scale_figure(Attribution("", [*higher, *steps])), "rates enter"
        fewer = scale_figure(Attribution("", [*rates[:3], *steps]))
        assert drawn != fewer, "every attacker has its line"
        page = render_attribution(Attribution("", [*rates, *steps]), "T", "2026-01-01T00:00:00")
        assert on_page(drawn, "scales", DESCRIPTIONS["scales"]) in page

    def test_a_panel_row_for_each_chain(self) -> None:
        steps = [("a1", "a0"), ("a2", "a1"), ("b1", "b0"), ("a1", "a0")]
        rows = [replace(ROWS[0], question="scale", anonymizer=a, compared_with=b) for a, b in steps]
        assert _chains(rows) == [["a0", "a1", "a2"], ["b0", "b1"]]


def test_files(tmp_path: Path) -> None:
    written = write_attribution(ATTRIBUTION_RESULT, str(tmp_path))
    assert [Path(uri).name for uri in written] == ["attribution.parquet", "attribution.json"]
    table = pq.read_table(written[0])
    assert table.equals(attribution_table(ROWS)) and table.schema.equals(ATTRIBUTION)
    assert table["ci_low"][2].as_py() == float("-inf")
    whole = json.loads(Path(written[1]).read_text())
    assert (whole["headline"], whole["statements"], whole["confidence_level"]) == (
        ATTRIBUTION_RESULT.headline,
        ["It rises."],
        0.9,
    )
    assert whole["rows"][2]["ci_low"] is None and whole["rows"][2]["value"] == 0.912
    assert whole["rows"][3]["subset"] == "region=face"


@pytest.mark.parametrize("alone", [True, False])
def test_the_page(report, alone: bool) -> None:
    if alone:
        text = render_attribution(
            ATTRIBUTION_RESULT, "<i>T</i>", "2026-01-01T00:00:00", ["Mind <this>."]
        )
        assert "&lt;i&gt;T" in text and "Mind &lt;this&gt;." in text
    else:
        assert "What carries the leak" not in render_html(report, {})
        text = render_html(replace(report, attribution=ATTRIBUTION_RESULT), {})
    assert "93.1 % [87.4, 97.2] of the leak &amp; more." in text and "<li>It rises.</li>" in text
    assert "canny &lt;b&gt;" in text and "canny <b>" not in text
    for row in ROWS:
        assert formatting.measured(row) in text
    for question in QUESTIONS:
        assert (formatting.QUESTION_LABELS[question] in text) == bool(
            ATTRIBUTION_RESULT.of(question)
        )
    assert "region: face" in text and "the 90 % bounds" in " ".join(text.split())
    assert "http://" not in text and "https://" not in text and text.count("<script") == 1


def test_the_terminal(report, capsys: pytest.CaptureFixture[str]) -> None:
    print_attribution(ATTRIBUTION_RESULT, ["Weak."])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["- It rises.", "Note: Weak.", "", ATTRIBUTION_RESULT.headline]
    out = io.StringIO()
    print_report(replace(report, attribution=ATTRIBUTION_RESULT), out)
    assert f"Why: {ATTRIBUTION_RESULT.headline}" in out.getvalue()


def test_beside_a_report(report, tmp_path: Path) -> None:
    written = write_report(replace(report, attribution=ATTRIBUTION_RESULT), str(tmp_path))
    assert (tmp_path / "attribution.json").exists()
    assert str(tmp_path / "attribution.parquet") in written
    assert written[-1].endswith("report.html")
