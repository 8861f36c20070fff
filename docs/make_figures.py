"""Figures of the documentation, made from a finished demo of people who do not exist.

    cldmray demo
    python docs/make_figures.py cldmray-demo

``reading_the_report.png`` takes a screenshot, for which Chromium must be installed.
"""

import argparse
import io
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pyarrow.parquet as pq
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.text import Text

from cldmray.anonymizers.base import Batch
from cldmray.anonymizers.baselines import Pixelate
from cldmray.arrays import Images
from cldmray.conditions.canny import Canny
from cldmray.faces.records import decode_image
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.report.terminal import decision_table
from cldmray.results.audit import AuditReport
from cldmray.results.files import read_audit

DOCS = Path(__file__).resolve().parent
INK, FAINT, RIGHT, WRONG = "#1f2933", "#9aa5b1", "#2f855a", "#b42318"
NAMES = ("A", "B", "C")
WALKED = "cldm-canny-1.0"
"""The anonymizer whose way from image to answer is shown."""
BADGES = {
    ".facts": 1,
    ".verdict .label": 2,
    ".verdict .follows": 3,
    "table.risks thead th:nth-child(2)": 4,
    "table.risks thead th:nth-child(3)": 5,
    "table.risks thead th:nth-child(4)": 6,
    "table.risks thead th:nth-child(5)": 7,
    "table.risks thead th:nth-child(7)": 8,
    "table.risks thead th:nth-child(8)": 9,
    "table.risks tr:nth-child(1) td.n:nth-child(3) .small": 10,
    "table.risks tr.why:nth-child(2) td": 11,
    "table.risks + .rule": 12,
}
"""Numbers of docs/report.md, by the part of the page that each stands in front of."""
SCREEN = (1180, 905)
"""Width and height in pixels of the page's first screen."""
COLOURS = 64
"""Of the palette of a written PNG, which keeps the repository small."""


def draw_galleries() -> Figure:
    """One probe, and what an attacker holds in each gallery."""
    source = SyntheticFaces(n_identities=3, images_per_identity=3)
    locations = source.listing().sort_by("identity")["location"].to_pylist()
    originals = np.stack([decode_image(content) for content in source.read(locations)])
    seeds = np.arange(len(originals))
    anonymized = Pixelate().open()(Batch(list(map(str, seeds)), originals, seeds))
    rows = (
        ("source_excluded\n(cross-image)", originals, {0}),
        ("source_included\n(same-image)", originals, set()),
        ("anonymized_only\n(linkage)", anonymized, {0}),
    )
    figure = plt.figure(figsize=(9.4, 3.3))
    probe = figure.add_axes((0.005, 0.31, 0.12, 0.34))
    _show(probe, anonymized[0], "probe: A 1", INK)
    for row, (label, images, absent) in enumerate(rows):
        bottom = 0.665 - 0.325 * row
        figure.text(0.155, bottom + 0.12, label, va="center", fontsize=9, color=INK)
        for place, image in enumerate(images):
            owner, number = divmod(place, 3)
            left = 0.315 + 0.071 * place + 0.018 * owner
            axes = figure.add_axes((left, bottom, 0.066, 0.26))
            title = f"{NAMES[owner]} {number + 1}" if row == 0 else ""
            if place in absent:
                _show(axes, np.full_like(image, 245), title, FAINT)
                axes.text(0.5, 0.5, "not\nthere", transform=axes.transAxes, **_MIDDLE)
            else:
                _show(axes, image, title, RIGHT if owner == 0 else FAINT)
    return figure


_MIDDLE = {"ha": "center", "va": "center", "fontsize": 8, "color": FAINT}


def draw_walk(report: AuditReport, run: Path) -> Figure:
    """From an image to the answer: original, condition, anonymized, best matches, release.

    Args:
        report: the finished audit.
        run: its output folder.
    """
    rows = pq.read_table(run / "evidence.parquet").to_pylist()
    row = next(r for r in rows if r["anonymizer"] == WALKED and r["rank"] == 1)
    original, anonymized = decode_image(row["original"]), decode_image(row["anonymized"])
    condition = Canny()(original[None])[0]
    matches = [decode_image(match) for match in row["matches"][:3]]
    figure = plt.figure(figsize=(10.4, 2.5))
    steps: Sequence[tuple[str, Images]] = (
        ("1  original", original),
        ("2  condition: edges", condition),
        ("3  anonymized", anonymized),
    )
    for step, (title, image) in enumerate(steps):
        _show(figure.add_axes((0.005 + 0.158 * step, 0.14, 0.125, 0.6)), image, title, FAINT)
        figure.text(0.147 + 0.158 * step, 0.44, "→", **_ARROW)
    figure.text(0.492, 0.83, "4  best matches among 16 people", fontsize=10, color=INK)
    for place, (match, own) in enumerate(zip(matches, row["mated"], strict=False)):
        axes = figure.add_axes((0.49 + 0.088 * place, 0.27, 0.08, 0.4))
        _show(axes, match, "", RIGHT if own else FAINT)
        axes.set_xlabel(f"{row['scores'][place]:.2f}", fontsize=9, color=RIGHT if own else INK)
    figure.text(0.492, 0.08, "green: the person of 1", fontsize=8.5, color=RIGHT)
    figure.text(0.767, 0.46, "→", **_ARROW)
    risk = next(risk for risk in report.risks if risk.anonymizer == WALKED)
    figure.text(0.782, 0.83, "5  identified, over all images", fontsize=10, color=INK)
    held = (("with another image", risk.cross_image), ("with the very image", risk.same_image))
    for line, (what, attack) in enumerate(held):
        assert attack is not None, f"{run} did not measure what is identified {what}"
        bottom, rate = 0.66 - 0.15 * line, f"{100 * attack.value:.1f} %"
        figure.text(0.782, bottom, rate, fontsize=12, color=INK, weight="bold")
        figure.text(0.868, bottom + 0.01, what, fontsize=9, color=INK)
    label = f"release: {risk.release}"
    box = {"boxstyle": "round,pad=0.4", "edgecolor": WRONG, "facecolor": "#fdecea"}
    figure.text(0.787, 0.28, label, fontsize=12, color=WRONG, weight="bold", bbox=box)
    return figure


_ARROW = {"ha": "center", "va": "center", "fontsize": 15, "color": FAINT}


def _show(axes: Axes, image: Images, title: str, edge: str) -> None:
    """An image in a frame, without ticks."""
    axes.imshow(image)
    axes.set_title(title, fontsize=10 if len(title) > 6 else 8.5, color=INK, loc="left")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=edge, linewidth=2)


def terminal_svg(report: AuditReport) -> str:
    """What ``cldmray demo`` prints of its decision, as an image of a terminal."""
    console = Console(record=True, width=96, file=io.StringIO())
    console.print(Text("$ cldmray demo", style="bold"))
    console.print(decision_table(report))
    console.print(Text("Report: cldmray-demo/report.html"))
    svg = console.export_svg(title="cldmray demo", unique_id="cldmray")
    # Nothing is fetched from elsewhere: the reader's own monospaced font does.
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S)


def screenshot(page: Path, target: Path) -> None:
    """The first screen of a report with a numbered badge in front of each part."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        raise SystemExit("reading_the_report.png needs Chromium, and none is installed")
    badge = (
        "display:inline-block;min-width:17px;height:17px;padding:0 3px;border-radius:9px;"
        "background:#1d4ed8;color:#fff;font:bold 11px/17px sans-serif;text-align:center;"
        "vertical-align:middle;letter-spacing:0"
    )
    # In a table there is no room: a badge stands above a heading, and on the left of a text.
    above, left = (
        "position:absolute;transform:translate(0,-115%)",
        "position:absolute;margin-left:-26px",
    )
    rules = [
        f'{part}::before{{content:"{n}";{badge};{above if " th" in part else left}}}'
        for part, n in BADGES.items()
    ]
    text = page.read_text("utf-8").replace("</style>", "\n".join([*rules, "</style>"]), 1)
    width, height = SCREEN
    with tempfile.TemporaryDirectory() as folder:
        numbered = Path(folder) / "report.html"
        numbered.write_text(text, "utf-8")
        subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             f"--window-size={width},{height}", f"--screenshot={target}", numbered.as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    shrink(target)


def save(figure: Figure, target: Path) -> None:
    """Write a figure as a small PNG that does not depend on when it was made."""
    figure.savefig(target, dpi=110, metadata={"Software": None})
    plt.close(figure)
    shrink(target)


def shrink(path: Path) -> None:
    """Reduce a PNG to a palette."""
    image = Image.open(path).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def main(run: Path, target: Path = DOCS) -> None:
    """Make all figures.

    Args:
        run: output folder of ``cldmray demo``.
        target: folder to write to.
    """
    matplotlib.use("Agg")
    report = read_audit(str(run))
    save(draw_galleries(), target / "galleries.png")
    save(draw_walk(report, run), target / "walk.png")
    (target / "demo.svg").write_text(terminal_svg(report), "utf-8")
    screenshot(run / "report.html", target / "reading_the_report.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the figures of the documentation.")
    parser.add_argument("run", type=Path, help="output folder of cldmray demo")
    main(parser.parse_args().run)
