"""What an attacker learns from: originals of attacker identities, and their anonymized images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cldmray.arrays import Images
from cldmray.conditions.base import Condition

Index = npt.NDArray[np.int64]


class Table(Protocol):
    """A finished table of the engine, as attackers see it: an ``engine.artifacts.Artifact``."""

    @property
    def key(self) -> str:
        """Hash of everything that decided the table."""

    def read(self, columns: list[str] | None = None, split: str | None = None) -> pa.Table:
        """The table in memory, sorted by sample; of one split, if one is given."""

    def images(self, split: str, prepare: Callable[[Images], Images]) -> Images:
        """Its images in that order; ``prepare`` is called with some, and what it gives is kept."""

    def count(self, split: str) -> int:
        """Rows of a split."""


@dataclass(frozen=True)
class AttackerImages:
    """Original images of some identities, and the anonymized images that were made of them.

    Attributes:
        sample_ids: of the originals, P of them.
        originals: uint8, shape (P, height, width, 3).
        identities: number of each original's identity, 0, 1, ..., shape (P,).
        anonymized: uint8, shape (Q, height, width, 3); none for an attacker that does not learn
            from anonymized images.
        source: row of ``originals`` that each anonymized image was made of, shape (Q,).
    """

    sample_ids: Sequence[str]
    originals: Images
    identities: Index
    anonymized: Images
    source: Index

    @property
    def anonymized_identities(self) -> Index:
        """Number of each anonymized image's identity, shape (Q,)."""
        return self.identities[self.source]


@dataclass(frozen=True)
class AttackData:
    """The tables that an attacker may learn from. They are read when they are asked for.

    Attributes:
        faces: table of the original images.
        anonymized: table of the anonymizer under attack; None for attackers that do not learn from
            anonymized images.
        anonymizer: its name; empty where there is none.
    """

    faces: Table
    anonymized: Table | None = None
    anonymizer: str = ""

    def images(self, *splits: str, side: int | None = None) -> AttackerImages:
        """Images of the identities of some splits; there may be none.

        Args:
            side: in pixels, to which larger images are brought while they are read, so that no more
                pixels are held than a network sees; None keeps them as they are.
        """
        originals = _rows(self.faces, splits, ["sample_id", "identity"])
        sample_ids = originals["sample_id"].to_pylist()
        prepare = partial(shrunk, side=side)
        images = _images(self.faces, splits, prepare)
        _, codes = np.unique(np.asarray(originals["identity"].to_pylist()), return_inverse=True)
        anonymized = np.zeros((0, *images.shape[1:]), np.uint8)
        source = np.zeros(0, np.int64)
        if self.anonymized is not None:
            table = _rows(self.anonymized, splits, ["sample_id"])
            row_of = {sample: row for row, sample in enumerate(sample_ids)}
            source = np.array([row_of[s] for s in table["sample_id"].to_pylist()], np.int64)
            anonymized = _images(self.anonymized, splits, prepare)
        return AttackerImages(sample_ids, images, codes.astype(np.int64), anonymized, source)

    def condition_maps(self, condition: Condition, *splits: str, side: int | None = None) -> Images:
        """Condition maps of the anonymized images, or of the originals where there are none.

        Args:
            condition: extracts them, at the images' own size.
            side: as for :meth:`images`.

        Returns:
            In the order of :meth:`images`, shape (N, height, width, 3).
        """
        table = self.faces if self.anonymized is None else self.anonymized
        return _images(table, splits, lambda images: shrunk(condition(images), side))


def shrunk(images: Images, side: int | None) -> Images:
    """Images whose sides are ``side`` pixels, as networks bring them to their own size.

    Images that are no larger, and all where the side is None, are left as they are.

    >>> shrunk(np.full((1, 64, 64, 3), 7, np.uint8), 32).shape
    (1, 32, 32, 3)
    """
    if side is None or min(images.shape[1:3]) <= side:
        return images
    import torch

    small = torch.nn.functional.interpolate(
        torch.from_numpy(np.array(images)).permute(0, 3, 1, 2),
        (side, side),
        mode="bilinear",
        antialias=True,
    )
    return np.ascontiguousarray(small.permute(0, 2, 3, 1).numpy())


def _rows(table: Table, splits: Sequence[str], columns: list[str]) -> pa.Table:
    return pa.concat_tables([table.read(columns, split) for split in splits])


def _images(table: Table, splits: Sequence[str], prepare: Callable[[Images], Images]) -> Images:
    parts = [table.images(split, prepare) for split in splits]
    some = [part for part in parts if len(part)]
    return np.concatenate(some) if len(some) > 1 else (some or parts)[0]
