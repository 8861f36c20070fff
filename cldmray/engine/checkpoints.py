"""Where a training of Ray Train ended."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray.train.torch import TorchTrainer

from cldmray.errors import CldmrayError


@contextmanager
def last_checkpoint(trainer: TorchTrainer, name: str) -> Iterator[Path]:
    """Train, and give the last checkpoint as a local folder.

    Raises:
        CldmrayError: the training reported none; the message has ``name``.
    """
    checkpoint = trainer.fit().checkpoint
    if checkpoint is None:
        raise CldmrayError(f"training of {name} ended without a checkpoint")
    with checkpoint.as_directory() as folder:
        yield Path(folder)
