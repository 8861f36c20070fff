"""What all figures share: size, colours, and how a drawing becomes a file or a part of a page.

A file keeps its colours. On a page they are the page's own (``var(--ink)`` ...), so that the figure
follows its light and its dark form.
"""

import io
import re

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from cldmray.results.audit import Finding

DPI = 160
WIDTH = 8.0
LONGEST_LABEL = 34

INK, MUTED, RULE, PAPER = "#1f2933", "#5f6b7a", "#e3e7ec", "#ffffff"
FINDING_COLOURS: dict[Finding, str] = {
    "leak": "#b3261e",
    "inconclusive": "#9a6700",
    "no_leak_found": "#1f7a4d",
}
LINE_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b4b8a")
LINE_STYLES = ("-", (0, (6, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
"""Colours after Okabe and Ito, distinguishable with any colour vision; styles multiply them."""
DASHED, DOTTED = (0, (4, 3)), (0, (1, 1.6))

PAGE_COLOURS = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    PAPER: "paper",
    **{colour: finding for finding, colour in FINDING_COLOURS.items()},
    **{colour: f"line-{place}" for place, colour in enumerate(LINE_COLOURS)},
}
"""Names of the page's own colours (style.css) that stand for those of the files."""
COLOUR = re.compile("|".join(PAGE_COLOURS))
OWN_ID = re.compile(r'\bid="|"#|url\(#')
"""Where a drawing names or uses one of its parts."""
NOT_FOR_PAGES = re.compile(
    r'^.*?(?=<svg)|<metadata>.*?</metadata>|<style.*?</style>| xmlns(:\w+)?="[^"]*"', re.DOTALL
)
"""The head of the file, the style that the page has too, and addresses that nobody follows."""


def canvas(height: float) -> Figure:
    """An empty figure of ``WIDTH`` x ``height`` inches at ``DPI``."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def panel(height: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes in the look that all share."""
    figure = canvas(height)
    axes = figure.add_subplot()
    style(axes)
    return figure, axes


def style(axes: Axes) -> None:
    """Give axes the look that all figures share."""
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0, labelsize=9)
    axes.xaxis.label.set_color(MUTED)
    axes.yaxis.label.set_color(MUTED)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(RULE)


def line_style(place: int) -> tuple[str, object]:
    """Colour and dashes of the line at a place, so that no two of 28 look alike."""
    dashes = LINE_STYLES[place // len(LINE_COLOURS) % len(LINE_STYLES)]
    return LINE_COLOURS[place % len(LINE_COLOURS)], dashes


def short(name: str) -> str:
    """A name of at most ``LONGEST_LABEL`` characters."""
    return name if len(name) <= LONGEST_LABEL else name[: LONGEST_LABEL - 1] + "…"


def as_written(texts: list[Text]) -> None:
    """Show names as they are: a dollar sign in one must not start mathematical text."""
    for text in texts:
        text.set_parse_math(False)


def svg(figure: Figure) -> bytes:
    """The figure as an SVG whose text is text, the same on every run."""
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cldmray"}):
        figure.savefig(buffer, format="svg", metadata=nothing)
    return buffer.getvalue()


def on_page(drawing: bytes, name: str, description: str) -> Markup:
    """An SVG as part of a page: in the page's colours, with ids of its own.

    Args:
        drawing: as :func:`svg` returns it.
        name: of the figure, different from others of the page.
        description: what it shows, for those who do not see it.
    """
    text = NOT_FOR_PAGES.sub("", drawing.decode())
    text = OWN_ID.sub(lambda use: f"{use[0]}{name}-", text)
    text = COLOUR.sub(lambda colour: f"var(--{PAGE_COLOURS[colour[0]]})", text)
    label = f'<svg role="img" aria-label="{escape(description)}"'
    return Markup(text.replace("<svg", label, 1).strip())
