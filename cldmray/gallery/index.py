"""An identity gallery that is kept: build, save, open, search and shard a FAISS index of faces."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cldmray import storage
from cldmray.errors import BadInputError
from cldmray.gallery.protocols import EmbeddingSet, IntArray, Strings, Vectors
from cldmray.gallery.vector_index import VectorIndex

SCHEMA_VERSION = 1
INDEX, REFERENCES, METADATA = "index.faiss", "references.parquet", "metadata.json"
SHARD = "shard-"


class Matches(NamedTuple):
    """The best references of each probe, best first, all of shape (P, k).

    Where an approximate index finds fewer than k, the rest has empty names and the score -inf.

    Attributes:
        identities: whom the references show.
        sample_ids: of the references.
        scores: inner products, descending.
    """

    identities: Strings
    sample_ids: Strings
    scores: Vectors


def reordered(matches: Matches, order: IntArray) -> Matches:
    """The columns of each probe's matches in another order, shape (P, j)."""
    return Matches(
        np.take_along_axis(matches.identities, order, 1),
        np.take_along_axis(matches.sample_ids, order, 1),
        np.take_along_axis(matches.scores, order, 1),
    )


@dataclass(frozen=True)
class GalleryMetadata:
    """What ``metadata.json`` says about a saved gallery.

    Attributes:
        kind: ``flat``, ``ivf`` or ``hnsw``.
        n: references.
        dimensions: of their embeddings.
        recall: measured share of the ten best matches that a search finds; 1 if it is flat.
        recognizer: name of the encoder that embedded them; may be empty.
        schema_version: of the folder's files.
    """

    kind: str
    n: int
    dimensions: int
    recall: float
    recognizer: str = ""
    schema_version: int = SCHEMA_VERSION


class GalleryIndex:
    """References of known identities with their embeddings, searched by inner product.

    >>> gallery = GalleryIndex.build(
    ...     np.eye(3, dtype=np.float32), ["ann", "bob", "bob"], ["a1", "b1", "b2"]
    ... )
    >>> matches = gallery.search(np.array([[0.0, 0.6, 0.8]], np.float32), k=2)
    >>> matches.identities.tolist(), matches.sample_ids.tolist()
    ([['bob', 'bob']], [['b2', 'b1']])
    >>> gallery.metadata.kind, gallery.metadata.recall
    ('flat', 1.0)

    Attributes:
        identities: of the references, shape (n,).
        sample_ids: of the references, shape (n,).
        recognizer: name of the encoder that embedded them; may be empty.
    """

    def __init__(
        self, index: VectorIndex, identities: Strings, sample_ids: Strings, recognizer: str = ""
    ) -> None:
        if not len(index) == len(identities) == len(sample_ids):
            raise BadInputError(
                f"{len(index)} embeddings do not fit {len(identities)} identities and "
                f"{len(sample_ids)} sample ids"
            )
        self._index = index
        self.identities = identities
        self.sample_ids = sample_ids
        self.recognizer = recognizer

    @classmethod
    def build(
        cls,
        embeddings: Vectors,
        identities: npt.ArrayLike,
        sample_ids: npt.ArrayLike,
        kind: str = "auto",
        *,
        recognizer: str = "",
        gpus: int | None = None,
    ) -> Self:
        """The gallery of these references.

        Args:
            embeddings: unit norm, shape (n, d).
            identities, sample_ids: names, shape (n,).
            kind: ``flat`` is exact; ``ivf`` and ``hnsw`` are approximate, widened until they find
                95 % of the best matches; ``auto`` is flat up to 1 GiB of embeddings, then IVF.
            recognizer: name of the encoder; searches by image ask for the same.
            gpus: at most so many GPUs search a flat gallery; None: all that there are.

        Raises:
            BadInputError: the numbers of embeddings and names differ.
            ConfigError: the kind is unknown.
        """
        index = VectorIndex(embeddings, kind, gpus)
        return cls(index, _names(identities), _names(sample_ids), recognizer)

    @property
    def metadata(self) -> GalleryMetadata:
        """What ``metadata.json`` says about this gallery."""
        index = self._index
        return GalleryMetadata(
            index.kind, len(index), index.dimensions, index.recall, self.recognizer
        )

    @property
    def references(self) -> EmbeddingSet:
        """All references with their embeddings."""
        return EmbeddingSet(self.sample_ids, self.identities, self._index.vectors)

    def __len__(self) -> int:
        return len(self._index)

    def search(self, vectors: Vectors, k: int) -> Matches:
        """The k best references of each probe; ``k`` is capped at the size of the gallery.

        Args:
            vectors: embeddings of the probes, unit norm, shape (P, d).

        Raises:
            BadInputError: they have another number of dimensions.
        """
        scores, rows = self._index.search(vectors, k)
        if not len(self):
            nobody = np.zeros(rows.shape, np.str_)
            return Matches(nobody, nobody, scores)
        missing = rows < 0
        return Matches(
            np.where(missing, "", self.identities[rows]),
            np.where(missing, "", self.sample_ids[rows]),
            scores,
        )

    def save(self, uri: str) -> None:
        """Write the gallery into a folder: FAISS index, names as Parquet, and metadata as JSON.

        Args:
            uri: local path, ``s3://`` or ``gs://``; the metadata come last, so that a folder that
                was left half written is no gallery.
        """
        names = {"identity": self.identities.tolist(), "sample_id": self.sample_ids.tolist()}
        schema = pa.schema([(name, pa.string()) for name in names])
        storage.write_bytes(storage.join(uri, INDEX), self._index.to_bytes())
        storage.write_table(storage.join(uri, REFERENCES), pa.table(names, schema))
        text = json.dumps(asdict(self.metadata), indent=1) + "\n"
        storage.write_bytes(storage.join(uri, METADATA), text.encode())

    @classmethod
    def open(cls, uri: str, gpus: int | None = None) -> Self:
        """The gallery that :meth:`save` wrote into a folder.

        Raises:
            BadInputError: the folder is absent, no gallery, or of another version; the message
                names it.
        """
        metadata = read_metadata(uri)
        try:
            content = storage.read_bytes(storage.join(uri, INDEX))
            index = VectorIndex.from_bytes(content, metadata.kind, metadata.recall, gpus)
            table = storage.read_table(storage.join(uri, REFERENCES))
            identities, sample_ids = (
                _names(table[column].to_pylist()) for column in ("identity", "sample_id")
            )
            gallery = cls(index, identities, sample_ids, metadata.recognizer)
        except (OSError, KeyError, pa.ArrowException, BadInputError) as error:
            raise BadInputError(f"no gallery at {uri}: {error}") from error
        if gallery.metadata != metadata:
            raise BadInputError(f"no gallery at {uri}: its files do not fit its {METADATA}")
        return gallery

    @classmethod
    def merge(cls, shards: Iterable["GalleryIndex"], kind: str = "auto") -> Self:
        """One gallery with the references of all shards, which stay as they are.

        Raises:
            BadInputError: no shards, or ones of different dimensions or recognizers.
        """
        parts = list(shards)
        if not parts:
            raise BadInputError("no gallery shards to merge")
        for what in ("dimensions", "recognizer"):
            values = sorted({getattr(part.metadata, what) for part in parts})
            if len(values) > 1:
                raise BadInputError(f"gallery shards of different {what}: {values}")
        return cls.build(
            np.concatenate([part.references.vectors for part in parts]),
            np.concatenate([part.identities for part in parts]),
            np.concatenate([part.sample_ids for part in parts]),
            kind,
            recognizer=parts[0].recognizer,
        )


class ShardedGallery:
    """A gallery in several folders, of which one at a time is held in memory.

    Args:
        uris: folders of the shards, each a :class:`GalleryIndex`.
    """

    def __init__(self, uris: list[str]) -> None:
        self.uris = uris

    @classmethod
    def build(
        cls, blocks: Iterable[EmbeddingSet], uri: str, kind: str = "auto", *, recognizer: str = ""
    ) -> Self:
        """Build and save a shard of each block, below one folder.

        Args:
            blocks: references; each block must fit into memory.
            kind, recognizer: see :meth:`GalleryIndex.build`.
        """
        uris = []
        for number, block in enumerate(blocks):
            uris.append(storage.join(uri, f"{SHARD}{number:05d}"))
            shard = GalleryIndex.build(
                block.vectors, block.identities, block.sample_ids, kind, recognizer=recognizer
            )
            shard.save(uris[-1])
        return cls(uris)

    @classmethod
    def open(cls, uri: str) -> Self:
        """The shards that :meth:`build` wrote below a folder.

        Raises:
            BadInputError: there is none.
        """
        names = {
            part
            for file in storage.list_files(uri)
            for part in file.path.split("/")
            if part.startswith(SHARD)
        }
        if not names:
            raise BadInputError(f"no gallery shards at {uri}")
        return cls([storage.join(uri, name) for name in sorted(names)])

    @property
    def recognizer(self) -> str:
        """Name of the encoder that the shards were built with; may be empty."""
        return read_metadata(self.uris[0]).recognizer if self.uris else ""

    def search(self, vectors: Vectors, k: int) -> Matches:
        """The k best references of each probe in all shards; see :meth:`GalleryIndex.search`."""
        best: Matches | None = None
        for uri in self.uris:
            matches = GalleryIndex.open(uri).search(vectors, k)
            best = matches if best is None else _best_of(best, matches, k)
        if best is None:
            raise BadInputError("no gallery shards to search")
        return best

    def merge(self, kind: str = "auto") -> GalleryIndex:
        """One gallery with the references of all shards."""
        return GalleryIndex.merge([GalleryIndex.open(uri) for uri in self.uris], kind)


def open_gallery(uri: str) -> GalleryIndex | ShardedGallery:
    """The gallery in a folder, in one piece or in shards.

    Raises:
        BadInputError: there is none; the message names the folder.
    """
    if storage.exists(storage.join(uri, METADATA)):
        return GalleryIndex.open(uri)
    return ShardedGallery.open(uri)


def read_metadata(uri: str) -> GalleryMetadata:
    """What a gallery's ``metadata.json`` says.

    Raises:
        BadInputError: it is absent, malformed, or of another version.
    """
    try:
        values = json.loads(storage.read_bytes(storage.join(uri, METADATA)))
        metadata = GalleryMetadata(**values)
    except (OSError, ValueError, TypeError) as error:
        raise BadInputError(f"no gallery at {uri}: {METADATA} cannot be read: {error}") from error
    if metadata.schema_version != SCHEMA_VERSION:
        raise BadInputError(
            f"the gallery at {uri} has the schema version {metadata.schema_version}, this is "
            f"{SCHEMA_VERSION}; build it again"
        )
    return metadata


def _best_of(best: Matches, other: Matches, k: int) -> Matches:
    """The k best of two lists of matches of the same probes."""
    identities, sample_ids, scores = (
        np.concatenate(columns, axis=1) for columns in zip(best, other, strict=True)
    )
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return reordered(Matches(identities, sample_ids, scores), order)


def _names(values: npt.ArrayLike) -> Strings:
    names: Strings = np.asarray(values, dtype=np.str_)
    return names
