"""Which identities stand in the galleries beside, or in place of, those that are evaluated."""

import pyarrow as pa
import pyarrow.compute as pc

from cldmray.errors import BadInputError
from cldmray.faces.base import FaceSource
from cldmray.faces.records import ATTACKER, EVALUATION
from cldmray.gallery.protocols import GallerySettings
from cldmray.hashing import identity_hash


def distractor_listing(settings: GallerySettings, audited: FaceSource) -> pa.Table | None:
    """Samples of ``gallery.faces``, as identities of the attacker; None: there is no such source.

    Args:
        audited: source of the evaluated images.

    Raises:
        BadInputError: somebody is in both sources.
    """
    if settings.faces is None:
        return None
    listing = settings.faces.listing()
    names = pc.unique(audited.listing()["identity"])
    twice = listing.filter(pc.is_in(listing["identity"], names))["identity"].to_pylist()
    if twice:
        raise BadInputError(
            f"gallery.faces: identity {identity_hash(min(twice))} is in the audited source, too; "
            "a distractor is somebody else: leave such people out, or rename them"
        )
    return listing.append_column("split", pa.array([ATTACKER] * len(listing), pa.string()))


def reference_listing(settings: GallerySettings, listing: pa.Table) -> pa.Table | None:
    """Samples of ``gallery.references``, with split; None: the originals are the references.

    Args:
        listing: the samples of the audit, with the column ``split``.

    Raises:
        BadInputError: fewer than two evaluated identities are there.
    """
    if settings.references is None:
        return None
    references = settings.references.listing()
    n_evaluated, n_shared = _shared(references, listing)
    if n_shared < 2:
        raise BadInputError(
            f"gallery.references: {n_shared} of the {n_evaluated} people to be evaluated are there "
            "by the same name, and a gallery needs two who can be confused; name the people of "
            "both sources alike"
        )
    split = pa.array([EVALUATION] * len(references), pa.string())
    return references.append_column("split", split)


def reference_note(references: pa.Table, listing: pa.Table) -> str:
    """Whom usable images of ``gallery.references`` show.

    Args:
        references: with the column ``identity``.
        listing: as in :func:`reference_listing`.
    """
    n_evaluated, n_shared = _shared(references, listing)
    others = pc.count_distinct(references["identity"]).as_py() - n_shared
    return (
        f"References are the {len(references)} images of gallery.references. They show {n_shared} "
        f"of the {n_evaluated} evaluated people, of whom the rates are, and {others} others."
    )


def gallery_size(settings: GallerySettings, audited: FaceSource, listing: pa.Table) -> int:
    """How many identities the galleries of originals or references hold.

    Raises:
        BadInputError: see :func:`distractor_listing` and :func:`reference_listing`.
    """
    references, others = reference_listing(settings, listing), distractor_listing(settings, audited)
    splits = [*([EVALUATION] if references is None else []), *settings.distractor_splits]
    own = listing.filter(pc.is_in(listing["split"], pa.array(splits, pa.string())))
    tables = [table for table in (own, references, others) if table is not None]
    names = pa.chunked_array([chunk for table in tables for chunk in table["identity"].chunks])
    size: int = pc.count_distinct(names).as_py()
    return size


def _shared(references: pa.Table, listing: pa.Table) -> tuple[int, int]:
    """How many identities are evaluated, and how many of them have references."""
    evaluated = pc.unique(listing.filter(pc.equal(listing["split"], EVALUATION))["identity"])
    shared = pc.is_in(evaluated, pc.unique(references["identity"]))
    return len(evaluated), pc.sum(shared).as_py() or 0
