"""The outcome in a terminal or a log file, at most 100 columns wide and without secrets."""

import json
import sys
from collections.abc import Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cldmray.errors import redact, redact_text
from cldmray.report.formatting import (
    GATE_LABELS,
    RELEASE_LABELS,
    RELEASE_SEVERITIES,
    SEVERITY_LABELS,
    levels,
)
from cldmray.report.statements import reconstruction_sentence
from cldmray.report.tables import chance_text, decision_order
from cldmray.results.attribution import Attribution
from cldmray.results.audit import AttackRate, AuditReport, Severity, Verdict
from cldmray.results.reconstruction import ReconstructionReport

WIDTH = 100
MARKER = "CLDMRAY_VERDICT"
HEADINGS = (
    "another\nimage at\nhand %",
    "the very\nimage at\nhand %",
    "person,\nall ima-\nges %",
    "linked\nwithout\noriginal %",
)
"""Of the columns of rates: what the attacker holds."""
STYLES: dict[Severity, str] = {
    "leak": "bold red",
    "leak_within_target": "bold yellow",
    "inconclusive": "bold yellow",
    "no_leak_found": "bold green",
    "neutral": "bold",
}


def decision_table(report: AuditReport) -> Table:
    """One row per anonymizer, as on the page's first screen: may it be released, and why."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("anonymizer", overflow="fold", max_width=22)
    table.add_column("release?", max_width=12)
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("k sup-\nported", justify="right", no_wrap=True)
    table.add_column("utility\nkept", justify="right", no_wrap=True)
    for risk in decision_order(report):
        table.add_row(
            _text(risk.anonymizer),
            _text(RELEASE_LABELS[risk.release], STYLES[RELEASE_SEVERITIES[risk.release]]),
            _rate(risk.cross_image),
            _rate(risk.same_image),
            _rate(risk.person_level),
            _rate(risk.linkage),
            _text(str(risk.k_supported)),
            _text("-" if risk.utility_kept is None else f"{risk.utility_kept.value:.2f}"),
        )
    return table


def _rate(attack: AttackRate | None) -> Text:
    """A rate in percent, and its bounds below it."""
    if attack is None:
        return _text("-")
    return _text(f"{100 * attack.value:.1f}\n{100 * attack.low:.1f}-{100 * attack.high:.1f}")


def print_report(report: AuditReport, file: TextIO | None = None) -> None:
    """Print the decision table, what carries the leak, notes, rejected files and the verdict.

    Args:
        report: the finished audit.
        file: where to, standard output by default. Colours are used only if it is a terminal;
            anything else gets plain text, ``WIDTH`` columns wide.
    """
    target = sys.stdout if file is None else file
    terminal = target.isatty()
    console = Console(
        file=target,
        force_terminal=terminal,
        no_color=None if terminal else True,
        highlight=False,
        soft_wrap=False,
    )
    console.width = min(console.width, WIDTH) if terminal else WIDTH
    console.print(decision_table(report))
    console.print(
        _text(
            f"Identified in %, chance {chance_text(report.risks)}; bounds hold at "
            f"{levels(report.risks)} for all attacks of one kind on an anonymizer together. "
            "Utility kept: 0 is the image of a random other person, 1 the original."
        )
    )
    for risk in decision_order(report):
        if risk.release_reason:
            console.print(_text(f"{risk.anonymizer}: {risk.release_reason}"))
        if risk.unstated_note:
            console.print(_text(f"Note on {risk.anonymizer}: {risk.unstated_note}"))
    if report.attribution is not None:
        console.print(_text(f"Why: {report.attribution.headline}"))
    for note in report.notes:
        console.print(_text(f"Note: {note}"))
    if report.rejected.num_rows:
        count = f"{report.rejected.num_rows} of {report.n_listed}"
        console.print(_text(f"{count} files were rejected; the report lists them with reasons."))
    severity = report.verdict.severity
    console.print()
    sentence = f"{SEVERITY_LABELS[severity]}: {report.verdict.sentence}"
    console.print(_text(sentence, STYLES[severity]))
    _print_consequences(console, report.verdict)


def _text(text: str, style: str = "") -> Text:
    """Text as it stands, without markup and secrets."""
    return Text(redact_text(text), style)


def verdict_line(verdict: Verdict) -> str:
    """The verdict for programs that read a job's log: one line, ``CLDMRAY_VERDICT {...}``.

    The JSON is that of ``verdict.json``, in ASCII, compact, its keys sorted.
    """
    content = redact(verdict.record)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"{MARKER} {text}"


def _print_consequences(console: Console, verdict: Verdict) -> None:
    """The recommended anonymizer and the gate's outcome, where there are any."""
    recommendation, gate = verdict.recommendation, verdict.gate
    if recommendation is not None:
        style = STYLES["no_leak_found" if recommendation.name else "inconclusive"]
        head = _text(f"Recommended: {recommendation.name or 'none'}", style)
        console.print()
        console.print(head.append(f". {recommendation.reason}", "default"))
    if gate.outcome != "none":
        style = STYLES["leak" if gate.reasons else "no_leak_found"]
        console.print()
        console.print(_text(f"{GATE_LABELS[gate.outcome]} ({gate.rules})", style))
        for reason in gate.reasons:
            console.print(Padding(_text(reason), (0, 0, 0, 2), expand=False))


def print_attribution(attribution: Attribution, notes: Sequence[str] = ()) -> None:
    """Print what carries the leak: statements, caveats, and last the headline."""
    console = Console(width=WIDTH, highlight=False, soft_wrap=False)
    for statement in attribution.statements:
        console.print(_text(f"- {statement}"))
    for note in notes:
        console.print(_text(f"Note: {note}"))
    console.print()
    console.print(_text(attribution.headline, "bold"))


def print_reconstruction(report: ReconstructionReport) -> None:
    """Print the verdict on every reconstruction, searches, caveats, and last the headline."""
    console = Console(width=WIDTH, highlight=False, soft_wrap=False)
    for result in report.results:
        console.print(_text(f"- {reconstruction_sentence(result)}"))
    for search in report.searches:
        best = search.trials[0]
        console.print(
            _text(
                f"Search against {search.anonymizer}: {len(search.trials)} trials, best "
                f"{search.objective} on validation people {best.objective:.3f} with "
                f"{best.queries:,} queries (trial {best.trial})."
            )
        )
    for note in report.notes:
        console.print(_text(f"Note: {note}"))
    console.print()
    console.print(_text(report.headline, "bold"))
