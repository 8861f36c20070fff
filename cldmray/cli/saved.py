"""What a finished audit left behind, shown again."""

import json

from cldmray import storage
from cldmray.errors import BadInputError


def show_report(folder: str) -> None:
    """Print the verdict of a finished audit and where its report lies.

    Args:
        folder: its output folder, local or remote.

    Raises:
        BadInputError: no audit has finished there.
    """
    page = storage.join(folder, "report.html")
    try:
        verdict = json.loads(storage.read_bytes(storage.join(folder, "verdict.json")))
    except (OSError, ValueError) as error:
        raise BadInputError(
            f"no finished audit in {folder}: {type(error).__name__} of verdict.json; give the "
            "output folder that 'cldmray audit' named"
        ) from error
    print(f"{verdict['sentence']}\n\nReport: {page}")
