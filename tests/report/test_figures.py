"""Figures are drawings with text, the same every time, in the page's colours when on a page."""

import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from cldmray.report.figures.curves import (
    GrowthPoint,
    cmc_figure,
    det_figure,
    growth_figure,
    learning_figure,
)
from cldmray.report.figures.style import LINE_COLOURS, PAGE_COLOURS, on_page
from cldmray.results.audit import DetCurve, LearningCurve

WHERE = ("pretrained", "full_ref", "source_excluded")
DET = [
    DetCurve("blur", *WHERE, "verification", [0.001, 0.01, 1.0], [0.6, 0.4, 0.0]),
    DetCurve("k_same", *WHERE, "open_set", [0.01, 0.1], [1.0, 0.9]),
]
LEARNING = [
    LearningCurve(name, "adaptive_contrastive", 0, [50, 100], [0.1, rate])
    for name, rate in (("blur", 0.8), ("k_same", 0.02), ("cldm-none", 0.1))
]


def texts(svg):
    """All texts of a drawing."""
    return [text for element in ET.fromstring(svg).iter() for text in [element.text] if text]


def test_cmc_figure(report):
    drawn = report.strongest_curves()
    svg = cmc_figure(drawn)
    assert all(curve.anonymizer in "".join(texts(svg)) for curve in drawn)
    assert all(colour.encode() in svg for colour in LINE_COLOURS[: len(drawn)])


def test_det_figure():
    svg = "".join(texts(det_figure(DET)))
    assert "false match rate (FMR)" in svg and "false negative rate (FNIR)" in svg
    assert "blur" in svg and "k_same" in svg
    alone = "".join(texts(det_figure(DET[:1])))
    assert "false negative rate" not in alone and "k_same" not in alone
    lone = DET[0]._replace(false_alarms=[1.0], misses=[0.0])
    assert det_figure([lone]) is None and det_figure([]) is None


def test_growth_figure():
    points = [
        GrowthPoint(2, 0.9, False, 0.5),
        GrowthPoint(100, 0.5, False, 0.04),
        GrowthPoint(1000, 0.2, True, 0.004),
    ]
    listed = texts(growth_figure({"blur": points, "k_same": points[:2], "none": []}))
    assert {"blur", "k_same", "chance", "people in the gallery"} <= set(listed)
    assert "none" not in listed
    uniform = [point._replace(chance=1 / point.gallery_size) for point in points]
    assert growth_figure({"blur": points}) != growth_figure({"blur": uniform})
    assert growth_figure({"blur": points[:1]}) is None and growth_figure({}) is None


def test_learning_figure():
    assert {"blur", "k_same", "cldm-none", "adaptive, contrastive"} <= set(
        texts(learning_figure(LEARNING))
    )
    lone = [replace_points(LEARNING[0])]
    assert learning_figure(lone) is None and learning_figure([]) is None
    steps = LEARNING[0].steps
    unmeasured = LEARNING[0]._replace(anonymizer="swap", validation_rank_1=[None] * len(steps))
    assert learning_figure([unmeasured]) is None
    assert learning_figure([*LEARNING, unmeasured]) == learning_figure(LEARNING)


def replace_points(curve):
    return curve._replace(steps=[50], validation_rank_1=[0.5])


def test_figures_are_reproducible(report):
    assert cmc_figure(report.curves) == cmc_figure(report.curves)
    assert learning_figure(LEARNING) == learning_figure(LEARNING)


def test_global_state_is_left_alone(report):
    cmc_figure(report.curves)
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize("name", ["$x_{", "_hidden", "n" * 300, "a\\frac", "<b>&"])
def test_odd_names_do_not_break_the_figures(report, name):
    svg = cmc_figure([replace(report.curves[0], anonymizer=name)])
    assert any(name[:20] in text for text in texts(svg))
    assert "<b>" not in on_page(svg, "cmc", "")


def test_one_rank_and_many_curves(report):
    short = replace(report.curves[0], ranks=[1], rates=[0.5], chance=[0.01])
    ET.fromstring(cmc_figure([short]))
    many = [replace(report.curves[0], anonymizer=f"a{i}") for i in range(20)]
    ET.fromstring(cmc_figure(many))


class TestOnAPage:
    def test_a_figure_follows_the_colours_of_the_page(self, report):
        part = on_page(cmc_figure(report.curves), "cmc", 'What "it" shows')
        assert part.startswith('<svg role="img" aria-label="What &#34;it&#34; shows"')
        assert "var(--ink)" in part and "var(--line-0)" in part
        assert not [colour for colour in PAGE_COLOURS if colour in part]

    def test_it_refers_to_nothing_outside(self, report):
        part = on_page(cmc_figure(report.curves), "cmc", "")
        assert "http" not in part and "<style" not in part and "<?xml" not in part

    def test_the_ids_of_two_figures_differ(self, report):
        svg = cmc_figure(report.curves)
        used = [set(re.findall(r'id="([^"]+)"', on_page(svg, name, ""))) for name in ("a", "b")]
        assert used[0] and not used[0] & used[1]
        part = on_page(svg, "a", "")
        links = set(re.findall(r'(?:href="|url\()#([^")]+)', part))
        assert links and links <= used[0]
