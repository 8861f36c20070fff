"""Utility as a table, files, metrics and a figure."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from cldmray.errors import BadInputError
from cldmray.report.figures import frontier
from cldmray.report.figures.frontier import (
    Box,
    FrontierPoint,
    frontier_figure,
    optimal,
    panels,
    place_labels,
)
from cldmray.report.figures.style import FINDING_COLOURS
from cldmray.report.html import render_html, report_figures, write_report
from cldmray.report.utility import costs, heading, utility_columns
from cldmray.results.audit import UtilityRow
from cldmray.results.decision import Recommendation
from cldmray.results.table import UTILITY, utility_table, write_utility
from cldmray.storage import read_table


def row(anonymizer, measure="ssim", value=0.5, **more):
    settings = {"n_images": 40, "higher_is_better": True, **more}
    return UtilityRow(anonymizer, measure, value, value - 0.0625, value + 0.0625, **settings)


@pytest.fixture
def useful(report):
    """The demo report with made-up utility of all its anonymizers."""
    rows = []
    for place, risk in enumerate(report.risks):
        name, share = risk.anonymizer, place / 8
        rows.append(row(name, "ssim", share, clean=1.0, chance=0.25))
        rows.append(row(name, "pose_consistency", 0.3 + share / 2, clean=1.0, chance=0.5))
        rows.append(
            row(name, "frechet_clean_trained", 1 - share, higher_is_better=False, clean=0.1)
        )
    return replace(report, utility=rows)


class TestTable:
    def test_headings(self):
        assert heading("edge_f1") == "Outlines kept (edge F1)"
        assert heading("skin_tone_agreement") == "Skin tone kept"
        assert heading("pose_consistency") == "Head pose kept"
        assert heading("frechet_sface") == "Distance from original images (Fréchet, sface features)"
        assert heading("novel") == "novel"

    def test_columns(self):
        rows = [
            row("a", "ssim", 0.5, clean=1.0, chance=0.25),
            row("a", "face_detection_rate", 0.9, clean=0.98),
            row("b", "ssim", 0.75, clean=1.0, chance=0.25),
            row("b", "frechet_x", 2.0, higher_is_better=False),
        ]
        ssim, faces, distance = utility_columns(rows, ["b", "a"])
        assert [cell.value for cell in ssim.cells] == ["0.75", "0.50"]
        assert ssim.cells[1].interval == "0.44 to 0.56"
        assert (ssim.arrow, ssim.clean.value, ssim.chance.value) == ("↑", "1.00", "0.25")
        assert faces.cells[0] is None
        assert faces.cells[1] == ("90.0 %", "83.8 to 96.2")
        assert (faces.clean.value, faces.chance) == ("98.0 %", None)
        assert (distance.arrow, distance.clean) == ("↓", None)

    def test_rows_are_sorted_and_typed(self):
        table = utility_table([row("b"), row("a", chance=0.5), row("a", "edge_f1")])
        assert table.schema.equals(UTILITY)
        assert table["anonymizer"].to_pylist() == ["a", "a", "b"]
        assert table["measure"].to_pylist() == ["edge_f1", "ssim", "ssim"]
        assert table["chance"].to_pylist() == [None, 0.5, None]
        assert table["ci_low"].to_pylist() == [0.4375] * 3

    def test_bad_rows_are_refused(self):
        with pytest.raises(BadInputError, match="twice"):
            utility_table([row("a"), row("a")])
        with pytest.raises(BadInputError, match="not finite"):
            utility_table([row("a", value=float("nan"))])


COSTS = {"ssim": {"value": 0.25, "most_useful": 0.5, "control": 1.0}, "novel": {"value": 2.0}}


class TestCosts:
    def test_the_recommended_one_beside_others(self):
        table = costs(Recommendation("a", "", "b", "no_op", COSTS))
        assert table.beside == ["b", "no_op"]
        assert table.rows == [
            ("Looks like the original (SSIM)", ["0.25", "0.50", "1.00"]),
            ("novel", ["2.00", "-", "-"]),
        ]
        assert costs(Recommendation("a", "", "a", None, COSTS)).beside == []

    def test_nothing_to_tell(self):
        assert costs(None) is None
        assert costs(Recommendation(None, "", "b", "no_op", COSTS)) is None
        assert costs(Recommendation("a", "")) is None

    def test_on_the_page(self, report):
        recommendation = Recommendation("a", "It passes.", "b", "no_op", COSTS)
        verdict = replace(report.verdict, recommendation=recommendation)
        first = render_html(replace(report, verdict=verdict), {}).split("<nav")[0]
        assert "What it costs in utility" in first and ">0.25</td>" in first


class TestFiles:
    def test_both_files_hold_the_same_rows(self, tmp_path):
        written = write_utility([row("b"), row("a")], str(tmp_path))
        assert [path.rsplit("/")[-1] for path in written] == ["utility.parquet", "utility.json"]
        table = read_table(written[0])
        assert json.loads((tmp_path / "utility.json").read_text())["rows"] == table.to_pylist()

    def test_no_rows_no_files(self, tmp_path):
        assert write_utility([], str(tmp_path)) == []
        assert list(tmp_path.iterdir()) == []

    def test_the_report_lists_them(self, useful, tmp_path):
        written = write_report(useful, str(tmp_path))
        names = {path.removeprefix(f"{tmp_path}/") for path in written}
        assert {"utility.parquet", "utility.json", "figures/frontier.svg"} <= names
        assert written[-1].endswith("report.html")


class TestPage:
    def test_every_value_is_shown(self, useful):
        page = render_html(useful, {})
        for column in utility_columns(useful.utility, [r.anonymizer for r in useful.risks]):
            assert column.heading in page
            assert all(cell.value in page and cell.interval in page for cell in column.cells)
        assert "What privacy costs" not in page

    def test_the_frontier_is_embedded(self, useful):
        figures = report_figures(useful)
        assert set(figures) == {"cmc.svg", "det.svg", "frontier.svg"}
        assert "What privacy costs" in render_html(useful, figures)

    def test_without_utility_there_is_no_section(self, report):
        assert "still good for" not in render_html(report, {})
        assert "frontier.svg" not in report_figures(report)

    def test_names_are_escaped(self, report):
        hostile = "<script>alert(1)</script>"
        page = render_html(replace(report, utility=[row(hostile, hostile)]), {})
        assert page.count("<script") == 1
        assert page.count("&lt;script&gt;alert(1)") >= 2


def anonymizer(report, name, utility, risk):
    return FrontierPoint(
        replace(report.risks[0], anonymizer=name, risk=risk), row(name, value=utility)
    )


class TestFrontier:
    def test_the_optimal_ones(self, report):
        points = [
            anonymizer(report, "best", 0.5, 0.1),
            anonymizer(report, "worse", 0.5, 0.2),
            anonymizer(report, "useless", 0.2, 0.1),
            anonymizer(report, "open", 0.9, 0.8),
            anonymizer(report, "twin", 0.9, 0.8),
            anonymizer(report, "grey", 0.1, 0.01),
        ]
        names = [point.risk.anonymizer for point in optimal(points)]
        assert names == ["grey", "best", "open", "twin"]

    def test_two_measures_are_drawn_preferred_ones_first(self, report):
        name = report.risks[0].anonymizer
        rows = [row(name, m) for m in ("edge_f1", "zest", "face_detection_rate", "ssim")]
        rows.append(row(name, "frechet_x", higher_is_better=False))
        drawn = panels(report.risks, rows)
        assert [settings[0].utility.measure for settings in drawn] == [
            "ssim",
            "face_detection_rate",
        ]
        assert [len(settings) for settings in drawn] == [1, 1]
        (only,) = panels(report.risks, [row(name, "zest")])
        assert only[0].utility.measure == "zest"

    def test_the_figure(self, useful):
        svg = frontier_figure(useful.ranked_risks, useful.utility)
        assert all(colour.encode() in svg for colour in FINDING_COLOURS.values())
        assert all(f">{risk.anonymizer}<".encode() in svg for risk in useful.risks)
        assert svg == frontier_figure(useful.ranked_risks, useful.utility)

    def test_nothing_to_draw(self, report):
        assert frontier_figure(report.risks, []) is None
        assert frontier_figure([], [row("a")]) is None
        assert frontier_figure(report.risks, [row("a stranger")]) is None

    def test_odd_values_and_names(self, report):
        risks = [replace(report.risks[0], anonymizer="$x_{" * 30, risk=0.0, low=0.0, high=0.0)]
        rows = [row(risks[0].anonymizer, value=0.0)]
        assert frontier_figure(risks, rows).startswith(b"<?xml")

    @pytest.mark.parametrize(
        ("chances", "floor"), [((0.0, 0.03), 0.01), ((0.0, 0.0), 1 / 300), ((0.06, 0.03), 0.01)]
    )
    def test_a_chance_of_0_leaves_a_logarithmic_axis(self, report, monkeypatch, chances, floor):
        drawn, lines = [], []

        def spy(axes, points, lowest):
            draw(axes, points, lowest)
            drawn.append(axes.get_ylim()[0])
            lines.extend(line.get_ydata()[0] for line in axes.lines)

        draw = frontier._draw
        monkeypatch.setattr(frontier, "_draw", spy)
        risks = [
            replace(report.risks[0], anonymizer=name, risk=0.2, chance=chance, gallery_size=100)
            for name, chance in zip("ab", chances, strict=True)
        ]
        frontier_figure(risks, [row("a"), row("b", value=0.7)])
        assert drawn == pytest.approx([0.85 * floor]) and min(lines) >= floor

    def test_twelve_names_do_not_overlap(self, report, monkeypatch):
        frames = []

        def spy(points, sizes, obstacles, drawn, frame):
            boxes = place_labels(points, sizes, obstacles, drawn, frame)
            frames.append((boxes, frame))
            return boxes

        monkeypatch.setattr(frontier, "place_labels", spy)
        names = [f"cldm-canny-0.{place}+depth-0.7" for place in range(12)]
        levels = [0.5, 0.48, 0.2, 0.17, *np.linspace(0.03, 0.06, 8)]
        risks = [
            replace(report.risks[0], anonymizer=name, risk=risk, low=0.8 * risk, high=1.2 * risk)
            for name, risk in zip(names, levels, strict=True)
        ]
        rows = [row(r.anonymizer, value=0.3 + r.risk / 2) for r in risks]
        frontier_figure(risks, rows)
        ((boxes, frame),) = frames
        assert len(boxes) == 12 and all(isinstance(box, Box) for box in boxes)
        assert all(box.within(frame) for box in boxes)
        assert not any(left.overlaps(right) for left, right in itertools.combinations(boxes, 2))
