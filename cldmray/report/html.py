"""The report as one self-contained HTML page, and every file beside it.

The page needs no network and opens from a disk. Its one script sorts and filters tables, is named
by its hash in the page's policy, and nothing depends on it. Figures are drawings whose text can be
selected.

Whatever a template writes is masked by :func:`cldmray.errors.redact_text` and escaped.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from cldmray import storage
from cldmray.arrays import Images
from cldmray.errors import redact, redact_text
from cldmray.faces.records import encode_image
from cldmray.hashing import identity_hash
from cldmray.report import formatting
from cldmray.report.figures.attribution import scale_figure
from cldmray.report.figures.curves import (
    cmc_figure,
    det_figure,
    growth_figure,
    learning_figure,
)
from cldmray.report.figures.frontier import frontier_figure
from cldmray.report.figures.style import on_page
from cldmray.report.tables import (
    GroupTable,
    attack_matrix,
    attackers_known,
    attackers_sentence,
    chance_text,
    confident_claims,
    decision_order,
    gallery_growth,
    group_table,
    most_exposed,
    simultaneous_rates,
    untouched_faces,
    with_one_interval,
)
from cldmray.report.utility import costs, utility_columns
from cldmray.results.attribution import Attribution
from cldmray.results.audit import AuditReport, Evidence
from cldmray.results.files import write_audit
from cldmray.results.reconstruction import ReconstructionReport
from cldmray.results.table import ALL, sorted_results

HEADLINE_MEASURE = "rank_1"
MOST_REJECTED_SHOWN = 500


def report_figures(report: AuditReport) -> dict[str, bytes]:
    """The report's figures as SVG, by file name.

    A figure that has nothing to show is left out.
    """
    figures = {
        "frontier.svg": frontier_figure(report.ranked_risks, report.utility),
        "learning.svg": learning_figure(report.learning),
        "det.svg": det_figure(report.det),
        "growth.svg": growth_figure(gallery_growth(report)),
    }
    if curves := report.strongest_curves():
        figures["cmc.svg"] = cmc_figure(curves)
    return {name: figure for name, figure in figures.items() if figure}


SECTIONS: dict[str, tuple[str, Callable[[AuditReport], object]]] = {
    "caveats": ("Before you rely on this", lambda report: report.notes),
    "evidence": ("Evidence", lambda report: report.evidence),
    "matrix": ("Every attacker on every anonymizer", lambda report: report.risks),
    "utility": ("What the images are still good for", lambda report: report.utility),
    "exposed": ("The most exposed people", lambda report: most_exposed(report)),
    "groups": ("Risk by group of people", lambda report: _groups(report)["groups"].rows),
    "attribution": ("What carries the leak", lambda report: report.attribution),
    "attackers": ("How good the attackers were", lambda report: report.diagnostics),
    "claims": ("Singling out", lambda report: confident_claims(report)),
    "inference": ("What can be inferred of people", lambda report: report.inference),
    "memorization": ("What was learnt by heart", lambda report: report.memorization),
    "growth": ("Risk in a larger gallery", lambda report: any(gallery_growth(report).values())),
    "curves": ("Error curves", lambda report: report.strongest_curves()),
    "examples": ("Examples", lambda report: len(report.grid.originals)),
    "methods": ("Methods and limits", lambda _: True),
    "terms": ("Terms of data-protection guidance", lambda _: True),
    "rejected": ("Rejected files", lambda _: True),
    "reproduce": ("How to reproduce it", lambda _: True),
    "results": ("All results", lambda report: report.results.num_rows),
}
"""The sections of an audit's page below the decision, by id: heading, and when it is there. Each is
the template ``audit/<id>.html.j2``."""


def render_html(report: AuditReport, figures: dict[str, bytes] | None = None) -> str:
    """The page as text. Everything that comes from data is escaped, secrets are masked.

    Args:
        report: the finished audit.
        figures: as :func:`report_figures` returns them; drawn here if absent.

    Raises:
        BadInputError: the results or images are malformed.
    """
    drawn = report_figures(report) if figures is None else figures
    risks = decision_order(report)
    order = [risk.anonymizer for risk in risks]
    rows = with_one_interval(
        sorted_results(report.results).to_pylist(), simultaneous_rates(report.risks)
    )
    whole = [row for row in rows if row["subset"] == ALL]
    utility_order = dict.fromkeys([*order, *(row.anonymizer for row in report.utility)])
    useful = [n for n in utility_order if any(u.anonymizer == n for u in report.utility)]
    rejected = report.rejected.to_pylist()
    recommendation = report.verdict.recommendation
    recommended = recommendation.name if recommendation else None
    evidence: dict[str, list[Evidence]] = {}
    for item in report.evidence:
        evidence.setdefault(item.anonymizer, []).append(item)
    return _template("audit_page.html.j2").render(
        report=report,
        title=report.title,
        sections={
            name: heading for name, (heading, is_there) in SECTIONS.items() if is_there(report)
        },
        risks=risks,
        useless=any(r.keeps_nothing for r in risks if r.anonymizer == recommended),
        rule=report.verdict.machine.get("rule"),
        costs=costs(recommendation),
        chance=chance_text(report.risks),
        attackers=attackers_sentence(report),
        knowledge=attackers_known(report),
        evidence=evidence,
        claims=confident_claims(report),
        exposures=most_exposed(report),
        untouched=untouched_faces(report),
        matrix=attack_matrix(rows, order),
        **_groups(report),
        machine=json.dumps(
            redact(report.verdict.machine), indent=2, ensure_ascii=False, sort_keys=True
        ),
        figures={name: _embedded(name, content) for name, content in drawn.items()},
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
    )


def _groups(report: AuditReport) -> dict[str, GroupTable]:
    rows, risks = report.results.to_pylist(), decision_order(report)
    return {
        "groups": group_table(rows, risks),
        "group_differences": group_table(rows, risks, "rank_1_difference"),
    }


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
    )


def render_reconstruction(
    report: ReconstructionReport, title: str, created: str, figures: Mapping[str, bytes]
) -> str:
    """A page of its own for a reconstruction attack.

    Args:
        created: ISO 8601 time.
        figures: files by name, see :mod:`cldmray.report.figures.reconstruction`.
    """
    succeeded = any(result.recovers for result in report.results)
    return _template("reconstruction_page.html.j2").render(
        report=report,
        title=title,
        created=created,
        figures={name: _embedded(name, content) for name, content in figures.items()},
        severity="leak" if succeeded else "no_leak_found" if report.results else "neutral",
        points=formatting.points,
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
    "growth": "Rank-1 rate of the strongest attack on each anonymizer over the number of people "
    "in the gallery.",
    "det": "Error rates of the strongest attack on each anonymizer over each other.",
    "learning": "Validation rank-1 rate over training steps.",
    "rates": "Rank-1 rates of reconstructions and controls.",
    "queries": "Validation rank-1 rate over queries.",
    "scales": "Rank-1 identification rate of each attacker over settings of rising control scale, "
    "with confidence intervals; the numbers stand in the tables.",
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


def _image(image: Images, description: str) -> Markup:
    """An image of shape (H, W, 3) as part of the page."""
    data = base64.b64encode(encode_image(image)).decode()
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
    script = resources.files("cldmray.report").joinpath("templates/script.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(
        formatting=formatting,
        image=_image,
        identity_hash=identity_hash,
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )
    return environment.get_template(name)
