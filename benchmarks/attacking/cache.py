"""Images of the laboratory: read, anonymized and embedded once, and found again in a folder."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from attacking.identities import batched
from cldmray.anonymizers.base import Anonymizer, Batch
from cldmray.arrays import Images
from cldmray.attackers.base import TrainingFreeAttacker
from cldmray.faces.base import FaceSource
from cldmray.faces.decode import decode
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION
from cldmray.faces.splits import SplitConfig, split_listing
from cldmray.hashing import digest, identity_hash, unit_hash
from cldmray.recognizers.base import Embeddings, Recognizer


@dataclass(frozen=True)
class Plan:
    """Who is in the laboratory.

    Attributes:
        attackers: people to learn from, at most.
        validation: people who rate a recipe, at most.
        splits: who is whose; its evaluation people are those whom ``--final`` looks at.
        min_images: images that a person needs.
        max_images: of each person.
        min_training_images: images that a person to learn from needs.
    """

    attackers: int = 600
    validation: int = 150
    min_images: int = 2
    max_images: int = 5
    min_training_images: int = 1
    splits: SplitConfig = field(default_factory=SplitConfig)

    def count(self, split: str) -> int:
        """People of a split."""
        counts = {ATTACKER: self.attackers, ATTACKER_VALIDATION: self.validation}
        return counts.get(split, self.splits.n_evaluation_identities)


class CachedImages:
    """Some images of a source: originals, their anonymized samples, embeddings of both.

    Args:
        source: of the originals.
        anonymizer: what makes the samples.
        rows: of the source's listing; see :func:`chosen_rows`.
        folder: where everything is kept, under the hash of what decides it.
        split: whose images they are, for tables.

    Attributes:
        source, anonymizer, split: as they are given.
        sample_ids, identities: of the originals, shape (N,).
        originals: images (N, h, w, 3).
        path: folder of what depends on the anonymizer.
    """

    def __init__(
        self,
        source: FaceSource,
        anonymizer: Anonymizer,
        rows: Sequence[int],
        folder: Path,
        split: str = "",
    ) -> None:
        self.source, self.anonymizer, self.split = source, anonymizer, split
        listing = source.listing().take(rows)
        self.sample_ids = np.array(listing["sample_id"].to_pylist())
        self.identities = np.array(listing["identity"].to_pylist())
        about = [source.name, str(source), self.sample_ids.tolist()]
        self._originals_folder = folder / digest(about)
        self.path = self._originals_folder / digest([repr(anonymizer), anonymizer.version()])
        self.path.mkdir(parents=True, exist_ok=True)
        locations: list[str] = listing["location"].to_pylist()

        def read() -> Images:
            contents = source.read(locations)
            return np.stack([decode(content, source.crop, source.size) for content in contents])

        self.originals: Images = kept(self._originals_folder / "originals.npy", read)

    def anonymized(self, samples: int = 1) -> Images:
        """So many anonymized samples of every original, sample after sample."""
        return np.concatenate([self._sample(sample) for sample in range(samples)])

    def source_rows(self, samples: int = 1) -> npt.NDArray[np.int64]:
        """Row of the original of each of :meth:`anonymized`."""
        return np.tile(np.arange(len(self.originals)), samples)

    def embeddings(self, recognizer: Recognizer, *, mirrored: bool = False) -> Embeddings:
        """A recognizer's embeddings of the originals.

        Args:
            mirrored: whether those of their mirror images are added.
        """
        name = digest([repr(recognizer), recognizer.version(), mirrored])

        def embed() -> Embeddings:
            vectors = recognizer.embed(self.originals)
            if not mirrored:
                return vectors
            both = vectors + recognizer.embed(np.ascontiguousarray(self.originals[:, :, ::-1]))
            return np.asarray(both / np.linalg.norm(both, axis=1, keepdims=True), np.float32)

        return kept(self._originals_folder / f"{name}.npy", embed)

    def embedded(self, attacker: TrainingFreeAttacker, *, of_samples: int = 0) -> Embeddings:
        """A training-free attacker's embeddings of the originals, or of anonymized samples."""
        name = f"{digest(repr(attacker))}-{of_samples}.npy"
        if not of_samples:
            return kept(self._originals_folder / name, lambda: attacker.embed(self.originals))
        return kept(self.path / name, lambda: attacker.embed(self.anonymized(of_samples)))

    def _sample(self, sample: int) -> Images:
        def anonymize() -> Images:
            run = self.anonymizer.open()
            ids = self.sample_ids.tolist()
            if self.anonymizer.grouping is not None:
                return run(Batch(ids, self.originals, np.zeros(len(ids), np.int64)))
            parts = batched(self.anonymizer, ids, self.originals, sample)
            return np.concatenate([run(batch) for batch in parts])

        return kept(self.path / f"sample-{sample}.npy", anonymize)


def chosen_rows(
    source: FaceSource, anonymizer: Anonymizer, split: str, plan: Plan
) -> Sequence[int]:
    """Rows of the listing: people whom the anonymizer never saw, in the order of a hash."""
    listing = source.listing()
    splits = split_listing(listing, plan.splits)
    trained_on = anonymizer.trained_on()
    rows: dict[str, list[int]] = {}
    for row, identity in enumerate(listing["identity"].to_pylist()):
        if splits.get(identity) == split and identity_hash(identity) not in trained_on:
            rows.setdefault(identity, []).append(row)
    least = plan.min_training_images if split == ATTACKER else plan.min_images
    ranked = [identity for identity, own in rows.items() if len(own) >= least]
    ranked.sort(key=lambda identity: (len(rows[identity]) < 2, unit_hash("benchmark", identity)))
    return [
        row for identity in ranked[: plan.count(split)] for row in rows[identity][: plan.max_images]
    ]


def kept(path: Path, make: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """The array of a file, which is made where it is not there."""
    if not path.exists():
        array = make()
        partial = path.with_name(f"{path.stem}.{os.getpid()}.npy")
        np.save(partial, array)
        partial.rename(path)
    loaded: npt.NDArray[Any] = np.load(path)
    return loaded
