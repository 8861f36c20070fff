"""Errors that workers raised, told to the user as if they had been raised here."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from cldmray import errors

OWN = re.compile(rf"^{re.escape(errors.__name__)}\.(\w+): (.+)$", re.MULTILINE)


@contextmanager
def own_errors() -> Iterator[None]:
    """Raise cldmray's own error where a worker's traceback ends in one.

    Ray hands on an exception of a data task, an actor or a training worker as text inside one of
    its own, whatever it was.

    Raises:
        CldmrayError: of the class, and with the first line of the message, that the worker raised.
    """
    try:
        yield
    except errors.CldmrayError:
        raise
    except Exception as error:
        raised = [
            (kind, message)
            for name, message in OWN.findall(str(error))
            if isinstance(kind := getattr(errors, name, None), type)
        ]
        if not raised:
            raise
        kind, message = raised[-1]
        raise kind(message) from error
