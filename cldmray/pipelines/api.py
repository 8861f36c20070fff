"""The Python API: audits from a notebook or a program, on names, objects, arrays and tables."""

import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cldmray import storage
from cldmray.anonymizers.base import Anonymizer
from cldmray.anonymizers.function import FunctionAnonymizer
from cldmray.attackers.base import Attacker
from cldmray.config.attribution import build_attribution
from cldmray.config.audit import build_audit
from cldmray.config.compose import compose, updated
from cldmray.config.files import shipped
from cldmray.config.instantiate import TARGET, settings_of
from cldmray.config.reconstruction import build_reconstruction
from cldmray.errors import BadInputError, ConfigError
from cldmray.faces.base import FaceSource
from cldmray.faces.records import encode_image
from cldmray.faces.sources.parquet import IDENTITY, IMAGE, ParquetFaces
from cldmray.faces.sources.survey import recognize
from cldmray.hashing import digest
from cldmray.pipelines.jobs import (
    AttributionResult,
    AuditResult,
    JobResult,
    ReconstructionResult,
    run_attribution,
    run_audit,
    run_reconstruction,
)
from cldmray.tracking import TrackingError

logger = logging.getLogger(__name__)

Result = TypeVar("Result", bound=JobResult)

AnonymizerLike = str | Mapping[str, Any] | Anonymizer | Callable[..., Any]
"""A name of ``cldmray list anonymizers``, settings with ``_target_``, an object, or a function
``(images, seeds) -> images``."""
AttackerLike = str | Mapping[str, Any] | Attacker
"""A name of ``cldmray list attackers``, settings with ``_target_``, or an object."""
MEMORY = "faces"
"""Folder of ``cache_dir`` for faces that were given as arrays or tables."""


def audit(
    faces: Any = "synthetic",
    anonymizers: Sequence[AnonymizerLike] | None = None,
    attackers: Sequence[AttackerLike] | None = None,
    preset: str = "small",
    **overrides: Any,
) -> AuditResult:
    """Audit anonymizers: attack their images, measure, write the report.

    Args:
        faces: a folder, table, Parquet or tar file, whose layout is recognised as ``cldmray plan
            faces=DIR`` says it, a name of ``cldmray list faces``, a
            :class:`~cldmray.faces.base.FaceSource`, a pair (images, identities) with images as
            uint8 arrays (height, width, 3), which are taken as aligned, or a table with the columns
            ``identity`` and ``image``: pandas, PyArrow or Hugging Face ``datasets``.
        anonymizers: names, objects, mappings with ``_target_`` and functions ``(images, seeds) ->
            images``; None: those of the default audit.
        attackers: names, objects and mappings with ``_target_``; None: those of the default audit.
        preset: ``small`` or ``large``.
        overrides: further settings by key. A key may be dotted (``**{"audit.seed": 1}``), and a
            mapping changes only what it names (``audit={"seed": 1}``). Nothing is recorded in
            MLflow unless ``tracking`` says where: ``auto``, ``sqlite``, ``server`` or settings.

    Returns:
        The audit. Where MLflow failed after the report was written, a warning is logged, ``mlflow``
        is None, and ``raise_tracking_error()`` raises the failure.

    Raises:
        CldmrayError: the audit cannot run; the message names the key, file or package.

    >>> import cldmray
    >>> result = cldmray.audit("faces/", anonymizers=["blur"])  # doctest: +SKIP
    >>> result.risk("blur").risk  # doctest: +SKIP
    0.83
    """
    settings = _settings("audit", faces, anonymizers, attackers, preset, overrides)
    return _with_warning(run_audit(build_audit(settings), settings_of(settings)))


def attribute(
    faces: Any = "synthetic",
    anonymizers: Sequence[AnonymizerLike] | None = None,
    attackers: Sequence[AttackerLike] | None = None,
    preset: str = "small",
    **overrides: Any,
) -> AttributionResult:
    """Find out what carries the leak: ablations, condition swaps, an operating point.

    Args:
        faces, anonymizers, attackers, preset, overrides: as of :func:`audit`; the settings of the
            study are ``attribution``.

    Raises:
        CldmrayError: the study cannot run; the message names the key, file or package.
    """
    settings = _settings("attribute", faces, anonymizers, attackers, preset, overrides)
    return _with_warning(run_attribution(build_attribution(settings), settings_of(settings)))


def invert(
    faces: Any = "synthetic",
    anonymizers: Sequence[AnonymizerLike] | None = None,
    preset: str = "small",
    **overrides: Any,
) -> ReconstructionResult:
    """Inversion attacks: reconstruct the originals, and identify the reconstructions.

    Args:
        faces, anonymizers, preset, overrides: as of :func:`audit`; the settings of the study are
            ``reconstruction``.

    Raises:
        CldmrayError: the study cannot run; the message names the key, file or package.
    """
    settings = _settings("invert", faces, anonymizers, None, preset, overrides)
    return _with_warning(run_reconstruction(build_reconstruction(settings), settings_of(settings)))


def _with_warning(result: Result) -> Result:
    """The result; without its run, and with a warning, where MLflow failed after it was written."""
    try:
        result.raise_tracking_error()
    except TrackingError as error:
        logger.warning("%s: %s", type(error).__name__, error)
        return replace(result, mlflow=None)
    return result


def _settings(
    base: str,
    faces: Any,
    anonymizers: Sequence[AnonymizerLike] | None,
    attackers: Sequence[AttackerLike] | None,
    preset: str,
    overrides: Mapping[str, Any],
) -> dict[str, Any]:
    """The configuration as plain data in which given objects stand as they are."""
    choices = [f"preset={preset}"]
    choices += _choices("anonymizers", anonymizers) + _choices("attackers", attackers)
    rest = dict(overrides)
    tracking = rest.pop("tracking", None)
    if tracking is None:
        choices.append("~tracking")
    for group, value in (("tracking", tracking), ("engine", rest.get("engine"))):
        if isinstance(value, str):
            choices.append(f"{group}={value}")
            rest.pop(group, None)
    option, place = _option(faces)
    if option is not None:
        choices.append(f"faces={option}")
    settings = compose(base, choices)
    composed = settings["faces"]
    if tracking is not None and not isinstance(tracking, str):
        rest["tracking"] = tracking
    if option is not None:
        settings["faces"] = {**composed, **place}
    else:
        settings["faces"] = _faces(faces, str(rest.get("cache_dir", settings["cache_dir"])))
    for group, given in (("anonymizers", anonymizers), ("attackers", attackers)):
        if given is not None:
            settings[group] = _members(group, given, settings.get(group) or {})
    result = updated(settings, rest)
    # Where a member of the group refers to the source of originals, it means the given one.
    for member in result["anonymizers"].values():
        if isinstance(member, dict) and member.get("faces") == composed:
            member["faces"] = result["faces"]
    return result


def _option(faces: Any) -> tuple[str | None, dict[str, str]]:
    """The option of the group ``faces`` that reads a name or place, and its settings.

    None stands for what is no name and no place.
    """
    if not isinstance(faces, str | Path):
        return None, {}
    if isinstance(faces, str) and shipped("faces", faces):
        return faces, {}
    layout = recognize(str(faces))
    logger.info("%s: %s, read by %s", faces, layout.description, shlex.join(layout.overrides))
    return layout.option, layout.settings


def _choices(group: str, given: Sequence[Any] | None) -> list[str]:
    """The override of a group with the names among what is given."""
    if given is None:
        return []
    if isinstance(given, str | Mapping):
        raise ConfigError(f"{group}: give a list, for example {group}=[...]")
    names = [item for item in given if isinstance(item, str)]
    return [f"{group}=[{','.join(names)}]"]


def _members(group: str, given: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a group by key, in the order in which they are given."""
    members: dict[str, Any] = {}
    for item in given:
        if isinstance(item, str):
            key, member = item, named[item]
        elif isinstance(item, Mapping):
            key, member = str(item.get(TARGET, "")).rpartition(".")[2], dict(item)
        elif isinstance(item, Attacker | Anonymizer):
            key, member = item.name, item
        elif group == "anonymizers" and callable(item) and not isinstance(item, type):
            member = FunctionAnonymizer(item)
            key = member.name
        else:
            raise ConfigError(
                f"{group}: {item!r} is no name, no object and no mapping with {TARGET}"
            )
        while key in members:
            key += "_"
        members[key] = member
    return members


def _faces(faces: Any, cache_dir: str) -> Any:
    """A source of faces, or its settings."""
    if isinstance(faces, FaceSource | Mapping):
        return faces
    table, side = _face_table(faces)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=256)
    content = sink.getvalue().to_pybytes()
    uri = storage.join(cache_dir, MEMORY, f"{digest(content.hex())[:16]}.parquet")
    if not storage.exists(uri):
        storage.write_bytes(uri, content)
    return ParquetFaces(uri) if side is None else ParquetFaces(uri, size=side, align="none")


def _face_table(faces: Any) -> tuple[pa.Table, int | None]:
    """Faces in memory as a table of identities and encoded images, and the side of arrays."""
    if isinstance(faces, tuple) and len(faces) == 2:
        return _array_table(*faces)
    if hasattr(faces, "with_format"):  # Hugging Face datasets
        faces = faces.with_format("arrow")[:]
    elif hasattr(faces, "iloc"):  # pandas
        faces = pa.Table.from_pandas(faces, preserve_index=False)
    if not isinstance(faces, pa.Table):
        raise BadInputError(
            "faces: give a folder, a face source, a pair (images, identities), or a table with "
            f"the columns {IDENTITY} and {IMAGE}, not {type(faces).__name__}"
        )
    missing = {IDENTITY, IMAGE} - set(faces.column_names)
    if missing:
        raise BadInputError(f"faces: the table lacks {', '.join(sorted(missing))}")
    return faces.select([n for n in (IDENTITY, IMAGE, "name") if n in faces.column_names]), None


def _array_table(images: Any, identities: Any) -> tuple[pa.Table, int]:
    images = [np.asarray(image) for image in images]
    names = [str(identity) for identity in identities]
    if len(images) != len(names) or not images:
        raise BadInputError(f"faces: {len(images)} images do not fit {len(names)} identities")
    for image in images:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise BadInputError(
                f"faces: images must be uint8 (height, width, 3), not {image.dtype} {image.shape}"
            )
    encoded = [encode_image(image) for image in images]
    side = min(min(image.shape[:2]) for image in images)
    return pa.table({IDENTITY: names, IMAGE: pa.array(encoded, pa.binary())}), side
