"""Figure of an attribution: risk over the control scale."""

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from cldmray.report.figures import INK, LINE_COLOURS, MUTED, RULE, canvas, plain, png, short, style
from cldmray.report.formatting import gallery_name
from cldmray.results.attribution import Attribution, AttributionRow

HEIGHT = 3.6
DASHED = (0, (4, 3))
ASIDE = 0.06
"""Between the lines of two attackers, so that their intervals do not hide each other."""


def scale_figure(found: Attribution) -> bytes | None:
    """Rank-1 rate over settings of rising control scale.

    A row of panels for each model and condition, a panel for each gallery, a line for each
    attacker, with its intervals; chance is dashed.

    Returns:
        PNG of ``WIDTH`` inches at ``DPI``, ``HEIGHT`` for every row; None where there are no two
        scales to compare.
    """
    chains = _chains(found.of("scale"))
    if not chains:
        return None
    rates = [row for row in found.of("ablation") if row.measure == "rank_1" and row.subset == "all"]
    attackers = list(dict.fromkeys(row.attacker for row in rates))
    galleries = list(dict.fromkeys(row.gallery for row in rates))
    figure = canvas(HEIGHT * len(chains))
    panels = figure.subplots(len(chains), len(galleries), squeeze=False)
    for row, chain in zip(panels, chains, strict=True):
        for axes, gallery in zip(row, galleries, strict=True):
            shown = [r for r in rates if r.gallery == gallery and r.anonymizer in chain]
            _panel(axes, chain, shown, attackers)
            axes.set_title(gallery_name(gallery), fontsize=9, color=MUTED)
        row[0].set_ylabel("images named at first guess")
    handles = [
        Line2D([], [], color=_colour(number), marker="o", ms=4, label=short(name))
        for number, name in enumerate(attackers)
    ]
    handles.append(Line2D([], [], color=INK, ls=DASHED, lw=1.2, label="guessing"))
    legend = figure.legend(
        handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9,
        labelcolor=INK,
    )  # fmt: skip
    plain(legend.get_texts())
    return png(figure)


def _panel(axes: Axes, chain: list[str], rates: list[AttributionRow], attackers: list[str]) -> None:
    style(axes)
    for number, attacker in enumerate(attackers):
        lane = {row.anonymizer: row for row in rates if row.attacker == attacker}
        aside = ASIDE * (number - (len(attackers) - 1) / 2)
        places = [place + aside for place, name in enumerate(chain) if name in lane]
        rows = [lane[name] for name in chain if name in lane]
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
    plain(axes.get_xticklabels())
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="y", color=RULE)


def _colour(number: int) -> str:
    return LINE_COLOURS[number % len(LINE_COLOURS)]


def _chains(steps: list[AttributionRow]) -> list[list[str]]:
    """Settings in order of their scale, out of the steps from each to the next."""
    chains: list[list[str]] = []
    for row in dict.fromkeys((row.compared_with, row.anonymizer) for row in steps):
        lower, higher = row
        chain = next((one for one in chains if one[-1] == lower), None)
        if chain is None:
            chains.append([lower, higher])
        else:
            chain.append(higher)
    return chains
