"""Small text files that name identities or photos, one a line."""

import pyarrow as pa

from cldmray import storage
from cldmray.errors import BadInputError


def read_lines(uri: str, key: str, expected: str) -> list[str]:
    """Lines of a UTF-8 text file without surrounding blanks; empty ones are left out.

    Args:
        uri: local path or URI.
        key: configuration key that gave the path, for the message.
        expected: what the file should hold, for the message.

    Raises:
        BadInputError: the file cannot be read, is not UTF-8 or has no line.
    """
    try:
        text = storage.read_bytes(uri).decode("utf-8-sig")
    except (OSError, ValueError, pa.ArrowException) as error:
        raise BadInputError(f"{key}: cannot read {uri}: {error}; expected {expected}") from error
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        raise BadInputError(f"{key}: {uri} is empty; expected {expected}")
    return lines


def read_pairs(uri: str, key: str, expected: str) -> dict[str, str]:
    """Mapping from lines of two words, as in CelebA's ``000001.jpg 2880``.

    Raises:
        BadInputError: see :func:`read_lines`; or a line has not two words, or the first word of
            a line stood before with another second one. The message gives the line.
    """
    pairs: dict[str, str] = {}
    for number, line in enumerate(read_lines(uri, key, expected), start=1):
        words = line.split()
        if len(words) != 2 or pairs.setdefault(words[0], words[1]) != words[1]:
            raise BadInputError(
                f"{key}: {uri}: entry {number} is {line!r}; expected a file name and a number, "
                "each file once"
            )
    return pairs
