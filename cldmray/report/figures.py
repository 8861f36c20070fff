"""Figures of the report as PNG bytes, drawn without Matplotlib's global state."""

import io

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from cldmray.report.formatting import percent
from cldmray.results.audit import AnonymizerRisk, CmcCurve, Finding

DPI = 160
WIDTH = 8.0
CMC_HEIGHT = 4.4
RISK_HEIGHT_BASE = 1.15
RISK_HEIGHT_ROW = 0.36
LONGEST_LABEL = 34

INK, MUTED, RULE = "#1f2933", "#5f6b7a", "#e3e7ec"
FINDING_COLOURS: dict[Finding, str] = {
    "leak": "#b3261e",
    "inconclusive": "#9a6700",
    "no_leak_found": "#1f7a4d",
}
LINE_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b4b8a")
LINE_STYLES = ("-", (0, (6, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
"""Colours after Okabe and Ito, distinguishable with any colour vision; styles multiply them."""


def risk_figure(risks: list[AnonymizerRisk]) -> bytes:
    """Rank-1 rate of each anonymizer's strongest attack, its interval and a tick at chance.

    Args:
        risks: top to bottom; at least one.

    Returns:
        PNG of ``WIDTH`` inches at ``DPI``, taller with every row.
    """
    figure, axes = _figure(RISK_HEIGHT_BASE + RISK_HEIGHT_ROW * len(risks))
    for row, risk in enumerate(risks):
        colour = FINDING_COLOURS[risk.finding]
        axes.plot([risk.low, risk.high], [row, row], color=colour, lw=2.4, solid_capstyle="round")
        axes.plot(risk.risk, row, "o", color=colour, ms=5.5, mew=0)
        axes.plot([risk.chance] * 2, [row - 0.32, row + 0.32], color=INK, lw=1.4)
        label = f"{percent(risk.risk)}  [{100 * risk.low:.1f}, {100 * risk.high:.1f}]"
        axes.text(1.02, row, label, transform=axes.get_yaxis_transform(), va="center", color=INK)
    axes.set_yticks(range(len(risks)), [short(risk.anonymizer) for risk in risks])
    as_written(axes.get_yticklabels())
    axes.set_ylim(len(risks) - 0.4, -0.6)
    axes.set_xlim(-0.01, 1.01)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="x", color=RULE)
    axes.set_xlabel("rank-1 identification rate; the upright tick is chance")
    return png(figure)


def cmc_figure(curves: list[CmcCurve]) -> bytes:
    """Cumulative match characteristics over a logarithmic rank axis, chance dashed.

    Args:
        curves: in the order of the legend, which repeats each curve's first rate; at least one.

    Returns:
        PNG of ``WIDTH`` x ``CMC_HEIGHT`` inches at ``DPI``.
    """
    figure, axes = _figure(CMC_HEIGHT)
    handles, labels = [], []
    for index, curve in enumerate(curves):
        style = LINE_STYLES[index // len(LINE_COLOURS) % len(LINE_STYLES)]
        colour = LINE_COLOURS[index % len(LINE_COLOURS)]
        (line,) = axes.plot(curve.ranks, curve.rates, color=colour, ls=style, lw=2.0)
        handles.append(line)
        labels.append(f"{percent(curve.rates[0]):>7}  {short(curve.anonymizer)}")
    for ranks, rates in dict.fromkeys((tuple(c.ranks), tuple(c.chance)) for c in curves):
        (line,) = axes.plot(ranks, rates, color=INK, ls=(0, (4, 3)), lw=1.2)
    handles.append(line)
    labels.append(f"{percent(curves[-1].chance[0]):>7}  chance")
    legend = axes.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.02),
        frameon=False,
        title=f"at rank {curves[0].ranks[0]}",
        alignment="left",
        fontsize=9,
        labelcolor=INK,
    )
    legend.get_title().set_color(MUTED)
    as_written(legend.get_texts())
    _rank_axis(axes, max(max(curve.ranks) for curve in curves))
    axes.set_ylim(-0.01, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(color=RULE)
    axes.set_ylabel("images whose person is among them")
    return png(figure)


def _rank_axis(axes: Axes, last: int) -> None:
    steps = [digit * 10**power for power in range(7) for digit in (1, 2, 5)]
    axes.set_xscale("log")
    axes.set_xlim(0.95, max(last, 2) * 1.05)
    axes.xaxis.set_major_locator(FixedLocator([step for step in steps if step <= last]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rank, _: f"{rank:,.0f}"))
    axes.set_xlabel("number of best-ranked identities looked at (rank)")


def canvas(height: float) -> Figure:
    """An empty figure of ``WIDTH`` x ``height`` inches at ``DPI``."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _figure(height: float) -> tuple[Figure, Axes]:
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


def short(name: str) -> str:
    """A name of at most ``LONGEST_LABEL`` characters."""
    return name if len(name) <= LONGEST_LABEL else name[: LONGEST_LABEL - 1] + "…"


def as_written(texts: list[Text]) -> None:
    """Show names as they are: a dollar sign in one must not start mathematical text."""
    for text in texts:
        text.set_parse_math(False)


def png(figure: Figure) -> bytes:
    """The figure as a PNG that is the same on every run."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
