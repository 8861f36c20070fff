"""Every file of a report in one folder."""

import json

from cldmray import storage
from cldmray.errors import redact
from cldmray.report.html import report_figures, write_html
from cldmray.results.audit import AuditReport
from cldmray.results.files import write_audit


def write_report(report: AuditReport, folder_uri: str) -> list[str]:
    """Write the page, the tables, the verdict for programs and the figures.

    Files: those of :func:`cldmray.results.files.write_audit`, ``verdict.json`` (sentence and machine
    part), ``figures/*.png`` and, last, ``report.html``.

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
    files |= {f"figures/{name}.png": png for name, png in figures.items()}
    for name, content in files.items():
        storage.write_bytes(storage.join(folder_uri, name), content)
        written.append(storage.join(folder_uri, name))
    page = storage.join(folder_uri, "report.html")
    write_html(report, page, figures)
    return [*written, page]
