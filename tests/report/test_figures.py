"""Figures decode, have the promised size, show ink, and are the same every time."""

import io
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cldmray.report import figures
from cldmray.report.figures import cmc_figure, risk_figure


def decode(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def shows(image, colour):
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((image == wanted).all(axis=2).sum() > 20)


def test_risk_figure(report):
    image = decode(risk_figure(report.ranked_risks))
    inches = figures.RISK_HEIGHT_BASE + figures.RISK_HEIGHT_ROW * len(report.risks)
    assert image.shape == (int(inches * figures.DPI), int(figures.WIDTH * figures.DPI), 3)
    assert all(shows(image, colour) for colour in figures.FINDING_COLOURS.values())


def test_cmc_figure(report):
    curves = report.strongest_curves()
    image = decode(cmc_figure(curves))
    size = (int(figures.CMC_HEIGHT * figures.DPI), int(figures.WIDTH * figures.DPI), 3)
    assert image.shape == size
    assert all(shows(image, colour) for colour in figures.LINE_COLOURS[: len(curves)])


def test_figures_are_reproducible(report):
    assert risk_figure(report.risks) == risk_figure(report.risks)
    assert cmc_figure(report.curves) == cmc_figure(report.curves)


def test_global_state_is_left_alone(report):
    risk_figure(report.risks)
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize("name", ["$x_{", "_hidden", "n" * 300, "a\\frac"])
def test_odd_names_do_not_break_the_figures(report, name):
    decode(risk_figure([replace(report.risks[0], anonymizer=name)]))
    decode(cmc_figure([replace(report.curves[0], anonymizer=name)]))


def test_one_rank_and_many_curves(report):
    short = replace(report.curves[0], ranks=[1], rates=[0.5], chance=[0.01])
    decode(cmc_figure([short]))
    many = [replace(report.curves[0], anonymizer=f"a{i}") for i in range(20)]
    decode(cmc_figure(many))
