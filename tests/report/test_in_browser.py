"""The page in a browser: no errors, no sideways scrolling, every image there, tables that sort."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cldmray.report.html import render_html
from cldmray.results.audit import AuditReport, Evidence, UtilityRow
from tests.report.browser import Tab, browser_tab, chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="there is no Chromium on this machine")

NO_IMAGE = "[...document.images].filter(i => !(i.complete && i.naturalWidth)).length"
SIDEWAYS = "document.documentElement.scrollWidth - window.innerWidth"
FIRST_CELLS = (
    "[...document.querySelector('#results table').tBodies[0].rows].map(r => r.cells[{}].innerText)"
)


@pytest.fixture
def page(report: AuditReport, tmp_path: Path) -> Path:
    """A whole report as a file, with long names and every kind of section."""
    image = report.grid.originals[0]
    evidence = [
        Evidence(
            risk.anonymizer, risk.attacker, risk.protocol, risk.gallery, image, image,
            np.stack([image] * 3), (True, False, False), (0.9, 0.5, 0.4), 1, 0.4,
        )
        for risk in report.risks[:3]
    ]  # fmt: skip
    utility = [
        UtilityRow(risk.anonymizer, measure, 0.5, 0.4, 0.6, 9, True, 1.0, 0.2)
        for risk in report.risks
        for measure in ("ssim", "edge_f1", "pose_consistency")
    ]
    long = replace(report.risks[0], anonymizer="cldm-" + "x" * 70)
    whole = replace(
        report, risks=[*report.risks[1:], long], evidence=evidence, utility=utility,
        notes=[*report.notes, "n" * 200],
    )  # fmt: skip
    path = tmp_path / "report.html"
    path.write_text(render_html(whole), encoding="utf-8")
    return path


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_and_is_whole(page: Path, width: int, dark: bool) -> None:
    async def look() -> tuple[list[str], int, int, int]:
        async with browser_tab() as tab:
            await tab.open(page, width, dark)
            count = await tab.value("document.images.length")
            return (tab.errors, await tab.value(SIDEWAYS), await tab.value(NO_IMAGE), count)

    errors, sideways, broken, count = asyncio.run(look())
    assert errors == []
    assert sideways <= 0
    assert broken == 0 and count > 20


def test_tables_are_sorted_and_filtered(page: Path) -> None:
    async def cells(tab: Tab, column: int) -> list[str]:
        listed: list[str] = await tab.value(FIRST_CELLS.format(column))
        return listed

    async def use() -> None:
        async with browser_tab() as tab:
            await tab.open(page, 1280)
            click = "document.querySelectorAll('#results th button')[6].click()"
            await tab.value(click)
            rates = [float(text) for text in await cells(tab, 6)]
            assert len(rates) > 10 and rates == sorted(rates)
            await tab.value(click)
            assert [float(text) for text in await cells(tab, 6)] == rates[::-1]
            await tab.value(
                "{const i = document.querySelector('#results input'); i.value = 'BLUR included';"
                "i.dispatchEvent(new Event('input'))}"
            )
            hidden = await tab.value(
                "[...document.querySelector('#results table').tBodies[0].rows]"
                ".filter(row => !row.hidden).map(row => row.innerText)"
            )
            assert hidden and all("blur" in text and "included" in text for text in hidden)
            await tab.value("document.querySelectorAll('.switch input')[1].click()")
            panels = "[...document.querySelectorAll('.switch .panel')].map(p => p.offsetHeight > 0)"
            listed = await tab.value(panels)
            assert listed[1] and sum(listed) == 1
            assert tab.errors == []

    asyncio.run(use())
