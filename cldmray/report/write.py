"""Every file of a report in one folder."""

import json

from cldmray import storage
from cldmray.errors import redact
from cldmray.report.html import report_figures, write_html
from cldmray.report.utility import write_utility
from cldmray.results.attribution import write_attribution
from cldmray.results.audit import AuditReport
from cldmray.results.table import write_results


def write_report(report: AuditReport, folder_uri: str) -> list[str]:
    """Write the page, the tables, the verdict for programs and the figures.

    Files: ``results.parquet``, ``results.json``, ``utility.parquet`` and ``utility.json`` where
    utility was measured, ``rejected.parquet``, ``verdict.json`` (sentence and machine part),
    ``figures/*.png``, ``attribution.parquet`` and ``attribution.json`` where there is one, and,
    last, ``report.html``.

    Args:
        report: the finished audit.
        folder_uri: local path, ``s3://`` or ``gs://``; created if absent.

    Returns:
        URIs of the files written, the page last.

    Raises:
        BadInputError: the results or images are malformed; the page is not written then.
    """
    written = write_results(report.results, folder_uri)
    written += write_utility(report.utility, folder_uri)
    if report.attribution is not None:
        written += write_attribution(report.attribution, folder_uri)
    figures = report_figures(report)
    verdict = redact(report.verdict.record)
    text = json.dumps(verdict, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    files = {"verdict.json": text.encode()}
    files |= {f"figures/{name}.png": png for name, png in figures.items()}
    for name, content in files.items():
        storage.write_bytes(storage.join(folder_uri, name), content)
        written.append(storage.join(folder_uri, name))
    rejected = storage.join(folder_uri, "rejected.parquet")
    storage.write_table(rejected, report.rejected)
    page = storage.join(folder_uri, "report.html")
    write_html(report, page, figures)
    return [*written, rejected, page]
