"""What an attacker learns from: originals of attacker identities, and their anonymized images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cldmray.arrays import Images
from cldmray.faces.records import decode_images

Index = npt.NDArray[np.int64]


class Table(Protocol):
    """A finished table of the engine, as attackers see it: an ``engine.artifacts.Artifact``."""

    @property
    def key(self) -> str:
        """Hash of everything that decided the table."""

    def read(self, columns: list[str] | None = None, split: str | None = None) -> pa.Table:
        """The table in memory, sorted by sample; of one split, if one is given."""

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

    def images(self, *splits: str) -> AttackerImages:
        """Images of the identities of some splits; there may be none."""
        originals = _rows(self.faces, splits)
        sample_ids = originals["sample_id"].to_pylist()
        images = decode_images(originals["image"].to_pylist())
        _, codes = np.unique(np.asarray(originals["identity"].to_pylist()), return_inverse=True)
        anonymized = np.zeros((0, *images.shape[1:]), np.uint8)
        source = np.zeros(0, np.int64)
        if self.anonymized is not None:
            table = _rows(self.anonymized, splits)
            row_of = {sample: row for row, sample in enumerate(sample_ids)}
            source = np.array([row_of[s] for s in table["sample_id"].to_pylist()], np.int64)
            anonymized = decode_images(table["image"].to_pylist())
        return AttackerImages(sample_ids, images, codes.astype(np.int64), anonymized, source)


def _rows(table: Table, splits: Sequence[str]) -> pa.Table:
    return pa.concat_tables([table.read(split=split) for split in splits])
