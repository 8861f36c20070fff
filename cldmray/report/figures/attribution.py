"""Figure of an attribution: risk over the control scale."""

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from cldmray.report.figures.style import (
    DASHED,
    INK,
    LINE_COLOURS,
    MUTED,
    RULE,
    as_written,
    canvas,
    short,
    style,
    svg,
)
from cldmray.report.formatting import attacker_name, gallery_name
from cldmray.results.attribution import Attribution, AttributionRow

HEIGHT = 3.6
ASIDE = 0.06
"""Between the lines of two attackers, so that their intervals do not hide each other."""


def scale_figure(attribution: Attribution) -> bytes | None:
    """Rank-1 rate over anonymizers of rising control scale.

    A row of panels for each model and condition, a panel for each gallery, a line for each
    attacker, with its intervals; chance is dashed.

    Returns:
        SVG of ``WIDTH`` inches, ``HEIGHT`` for every row; None where there are no two
        scales to compare.
    """
    chains = _chains(attribution.of("scale"))
    if not chains:
        return None
    rates = [
        row for row in attribution.of("ablation") if row.measure == "rank_1" and row.subset == "all"
    ]
    attackers = list(dict.fromkeys(row.attacker for row in rates))
    galleries = list(dict.fromkeys(row.gallery for row in rates))
    figure = canvas(HEIGHT * len(chains))
    panels = figure.subplots(len(chains), len(galleries), squeeze=False)
    for row, chain in zip(panels, chains, strict=True):
        for axes, gallery in zip(row, galleries, strict=True):
            in_panel = [r for r in rates if r.gallery == gallery and r.anonymizer in chain]
            _panel(axes, chain, in_panel, attackers)
            axes.set_title(gallery_name(gallery), fontsize=9, color=MUTED)
        row[0].set_ylabel("rank-1 identification rate")
    handles = [
        Line2D([], [], color=_colour(number), marker="o", ms=4, label=short(attacker_name(name)))
        for number, name in enumerate(attackers)
    ]
    handles.append(Line2D([], [], color=INK, ls=DASHED, lw=1.2, label="chance"))
    legend = figure.legend(
        handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9,
        labelcolor=INK,
    )  # fmt: skip
    as_written(legend.get_texts())
    return svg(figure)


def _panel(axes: Axes, chain: list[str], rates: list[AttributionRow], attackers: list[str]) -> None:
    style(axes)
    for number, attacker in enumerate(attackers):
        by_name = {row.anonymizer: row for row in rates if row.attacker == attacker}
        aside = ASIDE * (number - (len(attackers) - 1) / 2)
        places = [place + aside for place, name in enumerate(chain) if name in by_name]
        rows = [by_name[name] for name in chain if name in by_name]
        errors = [[r.value - r.low for r in rows], [r.high - r.value for r in rows]]
        values = [row.value for row in rows]
        axes.errorbar(
            places, values, errors, marker="o", ms=4, lw=1.8, capsize=2.5, color=_colour(number)
        )
    for chance in {row.chance for row in rates if row.chance is not None}:
        axes.axhline(chance, color=INK, ls=DASHED, lw=1.2, zorder=0)
    axes.set_xticks(
        range(len(chain)), [short(name) for name in chain], rotation=35, ha="right",
        rotation_mode="anchor",
    )  # fmt: skip
    as_written(axes.get_xticklabels())
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="y", color=RULE)


def _colour(number: int) -> str:
    return LINE_COLOURS[number % len(LINE_COLOURS)]


def _chains(steps: list[AttributionRow]) -> list[list[str]]:
    """Anonymizers in order of their scale, out of the steps from each to the next."""
    chains: list[list[str]] = []
    for row in dict.fromkeys((row.compared_with, row.anonymizer) for row in steps):
        lower, higher = row
        chain = next((names for names in chains if names[-1] == lower), None)
        if chain is None:
            chains.append([lower, higher])
        else:
            chain.append(higher)
    return chains
