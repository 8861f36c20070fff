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
    FINDING_LABELS,
    GATE_LABELS,
    SEVERITY_LABELS,
    gallery_name,
    levels,
    protocol_name,
    supported_ks,
)
from cldmray.report.statements import reconstruction_sentence
from cldmray.results.attribution import Attribution
from cldmray.results.audit import AuditReport, Severity, Verdict
from cldmray.results.reconstruction import ReconstructionReport

WIDTH = 100
MARKER = "CLDMRAY_VERDICT"
STYLES: dict[Severity, str] = {
    "leak": "bold red",
    "inconclusive": "bold yellow",
    "no_leak_found": "bold green",
    "neutral": "bold",
}


def verdict_table(report: AuditReport) -> Table:
    """One row per anonymizer, highest risk first: its strongest attack and what follows."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("anonymizer", overflow="fold", max_width=24)
    table.add_column(
        "strongest attack:\nattacker, protocol, gallery", overflow="fold", min_width=26
    )
    table.add_column(_text(f"rank-1 %\n[{levels(report.risks)}]"), justify="right", no_wrap=True)
    table.add_column("chance\n%", justify="right", no_wrap=True)
    table.add_column("k sup-\nported", justify="right", no_wrap=True)
    table.add_column("k not\nrej.", justify="right", no_wrap=True)
    table.add_column("finding", max_width=13)
    supported = supported_ks(report)
    for risk in report.ranked_risks:
        rate = f"{100 * risk.risk:.1f} [{100 * risk.low:.1f}, {100 * risk.high:.1f}]"
        table.add_row(
            _text(risk.anonymizer),
            _text(f"{risk.attacker}\n{protocol_name(risk.protocol)}, {gallery_name(risk.gallery)}"),
            _text(rate),
            _text(f"{100 * risk.chance:.3g}"),
            _text(str(supported[risk.anonymizer])),
            _text(str(risk.k_not_rejected)),
            _text(FINDING_LABELS[risk.finding], style=STYLES[risk.finding]),
        )
    return table


def print_report(report: AuditReport, file: TextIO | None = None) -> None:
    """Print the table of risks, what carries the leak, notes, rejected files and the verdict.

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
    console.print(verdict_table(report))
    for risk in report.ranked_risks:
        if risk.note:
            console.print(_text(f"Note on {risk.anonymizer}: {risk.note}"))
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
