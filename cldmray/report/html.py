"""The report as one self-contained HTML page, and every file beside it.

The page needs no network and opens from a disk; figures are drawings whose text can be selected.

Whatever a template writes is masked by :func:`cldmray.errors.redact_text` and escaped.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from cldmray import storage
from cldmray.errors import redact, redact_text
from cldmray.report import formatting
from cldmray.report.figures.attribution import scale_figure
from cldmray.report.figures.curves import cmc_figure, det_figure, learning_figure
from cldmray.report.figures.frontier import frontier_figure
from cldmray.report.figures.image_grid import evidence_figure, image_grid
from cldmray.report.figures.style import on_page
from cldmray.report.utility import utility_columns
from cldmray.results.attribution import Attribution
from cldmray.results.audit import AuditReport
from cldmray.results.files import write_audit
from cldmray.results.reconstruction import ReconstructionReport
from cldmray.results.table import ALL, IMAGE_LEVEL, sorted_results

HEADLINE_MEASURE = "rank_1"
MOST_REJECTED_SHOWN = 500


def report_figures(report: AuditReport) -> dict[str, bytes]:
    """The report's figures by file name: drawings of curves as SVG, sheets of images as PNG.

    A figure that has nothing to show is left out.
    """
    figures = {
        "frontier.svg": frontier_figure(report.ranked_risks, report.utility),
        "learning.svg": learning_figure(report.learning),
        "det.svg": det_figure(strongest_rates(report)),
    }
    if curves := report.strongest_curves():
        figures["cmc.svg"] = cmc_figure(curves)
    if len(report.grid.originals):
        figures["images.png"] = image_grid(report.grid)
    if report.evidence:
        figures["evidence.png"] = evidence_figure(report.evidence)
    return {name: figure for name, figure in figures.items() if figure}


def strongest_rates(report: AuditReport) -> dict[str, dict[str, float]]:
    """Values by measure of the strongest attack on each anonymizer, highest risk first."""
    keys = ("anonymizer", "attacker", "protocol", "gallery")
    values: dict[tuple[str, ...], dict[str, float]] = {}
    for row in report.results.to_pylist():
        if (row["subset"], row["level"]) == (ALL, IMAGE_LEVEL) and row["value"] is not None:
            values.setdefault(tuple(row[key] for key in keys), {})[row["measure"]] = row["value"]
    attacks = [(r.anonymizer, r.attacker, r.protocol, r.gallery) for r in report.ranked_risks]
    return {attack[0]: values[attack] for attack in attacks if attack in values}


def render_html(report: AuditReport, figures: dict[str, bytes] | None = None) -> str:
    """The page as text. Everything that comes from data is escaped, secrets are masked.

    Args:
        report: the finished audit.
        figures: as :func:`report_figures` returns them; drawn here if absent.

    Raises:
        BadInputError: the results or images are malformed.
    """
    drawn = report_figures(report) if figures is None else figures
    all_rows = sorted_results(report.results).to_pylist()
    rows = [row for row in all_rows if row["level"] == IMAGE_LEVEL]
    whole = [row for row in rows if row["subset"] == ALL]
    rejected = report.rejected.to_pylist()
    order = [risk.anonymizer for risk in report.ranked_risks]
    order += [row.anonymizer for row in report.utility]
    useful = [n for n in dict.fromkeys(order) if any(u.anonymizer == n for u in report.utility)]
    return _template("audit_page.html.j2").render(
        report=report,
        machine=json.dumps(
            redact(report.verdict.machine), indent=2, ensure_ascii=False, sort_keys=True
        ),
        figures={name: _embedded(name, content) for name, content in drawn.items()},
        k_supported=formatting.supported_ks(report),
        headline=[row for row in whole if row["measure"] == HEADLINE_MEASURE],
        others=[row for row in whole if row["measure"] != HEADLINE_MEASURE],
        parts=[row for row in rows if row["subset"] != ALL],
        reasons=_count_reasons(rejected),
        rejected=rejected[:MOST_REJECTED_SHOWN],
        n_rejected=len(rejected),
        n_audited=report.n_listed - len(rejected),
        useful=useful,
        utility=utility_columns(report.utility, useful),
        levels=formatting.levels(report.risks),
        settings=formatting.flatten(report.settings),
        formatting=formatting,
    )


def render_attribution(
    attribution: Attribution, title: str, created: str, notes: Sequence[str] = ()
) -> str:
    """A page of its own for an attribution.

    Args:
        created: ISO 8601 time.
        notes: caveats for the reader, one sentence each.
    """
    scales = scale_figure(attribution)
    return _template("attribution_page.html.j2").render(
        attribution=attribution,
        title=title,
        created=created,
        notes=notes,
        scales=_embedded("scales.svg", scales) if scales else None,
        formatting=formatting,
    )


def render_reconstruction(
    report: ReconstructionReport, title: str, created: str, figures: Mapping[str, bytes]
) -> str:
    """A page of its own for a reconstruction attack.

    Args:
        created: ISO 8601 time.
        figures: PNG files by name, see ``report.reconstruction_figures``.
    """
    succeeded = any(result.recovers for result in report.results)
    return _template("reconstruction_page.html.j2").render(
        report=report,
        title=title,
        created=created,
        figures={name: _embedded(f"{name}.png", png) for name, png in figures.items()},
        severity="leak" if succeeded else "no_leak_found" if report.results else "neutral",
        points=formatting.points,
        formatting=formatting,
    )


def write_html(report: AuditReport, uri: str, figures: dict[str, bytes] | None = None) -> None:
    """Write :func:`render_html` to a file, local or remote."""
    storage.write_bytes(uri, render_html(report, figures).encode())


def write_report(report: AuditReport, folder_uri: str) -> list[str]:
    """Write the page, the tables, the verdict for programs and the figures.

    Files: those of :func:`cldmray.results.files.write_audit`, ``verdict.json`` (sentence and
    machine part), ``figures/*`` and, last, ``report.html``.

    Args:
        report: the finished audit.
        folder_uri: local path, ``s3://`` or ``gs://``; created if absent.

    Returns:
        URIs of the files written, the page last.

    Raises:
        BadInputError: the results or images are malformed; the page is not written then.
    """
    written = write_audit(report, folder_uri)
    figures = report_figures(report)
    verdict = redact(report.verdict.record)
    text = json.dumps(verdict, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    files = {"verdict.json": text.encode()}
    files |= {f"figures/{name}": content for name, content in figures.items()}
    for name, content in files.items():
        storage.write_bytes(storage.join(folder_uri, name), content)
        written.append(storage.join(folder_uri, name))
    page = storage.join(folder_uri, "report.html")
    write_html(report, page, figures)
    return [*written, page]


def _count_reasons(rejected: list[dict[str, Any]]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for row in rejected:
        counts[row["reason"]] = counts.get(row["reason"], 0) + 1
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


DESCRIPTIONS = {
    "frontier": "Rank-1 identification rate of the strongest attack on each anonymizer over the "
    "usefulness of its images; the numbers stand in the tables.",
    "cmc": "Cumulative match characteristic of the strongest attack on each anonymizer.",
    "det": "Error rates of the strongest attack on each anonymizer over each other.",
    "learning": "Validation rank-1 rate of each attacker over its training steps.",
    "scales": "Rank-1 identification rate of each attacker over settings of rising control scale, "
    "with confidence intervals; the numbers stand in the tables.",
    "images": "Grid of example images: originals in the first row, then condition and anonymized "
    "images of each anonymizer.",
    "evidence": "Rows of an anonymized image and the references that the strongest attack finds "
    "most similar; frames mark those of the same person.",
}
"""What figures show, for those who do not see them, by name."""


def _embedded(file: str, content: bytes) -> Markup:
    """A figure as part of the page, which needs neither masking nor escaping."""
    name, _, ending = file.partition(".")
    description = DESCRIPTIONS.get(name, name)
    if ending == "svg":
        return on_page(content, name, description)
    data = base64.b64encode(content).decode()
    return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(description, data)


def _masked(value: Any) -> Any:
    """What one expression of a template yields, without secrets; parts of the page stay."""
    is_data = isinstance(value, str) and not isinstance(value, Markup)
    return redact_text(value) if is_data else value


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cldmray.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_masked,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
