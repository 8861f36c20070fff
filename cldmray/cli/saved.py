"""What a finished audit left behind, shown again."""

from cldmray import storage


def show_report(folder: str) -> None:
    """Print the outcome of a finished audit, and render its page again.

    Args:
        folder: its output folder, local or remote.

    Raises:
        BadInputError: no audit has finished there.
        StorageError: the page cannot be written.
    """
    from cldmray.report.html import write_html
    from cldmray.report.terminal import print_report
    from cldmray.results.files import read_audit

    report = read_audit(folder)
    page = storage.join(folder, "report.html")
    write_html(report, page)
    print_report(report)
    print(f"\nReport: {page}")
