"""Rows of utility from what was measured image by image, with intervals over identities."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cldmray.arrays import Interval
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.faces.records import ORIGINAL, embedding_matrix
from cldmray.metrics.confidence import bootstrap_identities, bootstrap_mean, bootstrap_statistic
from cldmray.metrics.frechet import frechet_distance
from cldmray.metrics.pose import majority_share, yaw_classes
from cldmray.results.audit import UtilityRow

MeasuredImage = dict[str, Any]
"""A row of ``engine.utility.MEASURED``."""
ImagePair = tuple[MeasuredImage, MeasuredImage]
"""Of an anonymized image, and of its original."""
FRECHET_N_BOOTSTRAP = 100


def image_rows(
    anonymizer: str, pairs: list[ImagePair], groups: pa.Table | None, settings: EvaluationSettings
) -> Iterator[UtilityRow]:
    """All measures of single images that ``settings.utility`` names.

    Args:
        pairs: of the anonymizer's images.
        groups: column ``identity`` and one for each attribute; null where unknown.
    """
    if not pairs:
        return

    def row(
        measure: str,
        values: Any,
        measured: list[ImagePair],
        interval: Callable[..., Interval],
        clean: float,
        chance: float | None = None,
    ) -> UtilityRow:
        identities = np.asarray([own["identity"] for own, _ in measured])
        found = interval(
            values,
            identities,
            settings.confidence_level,
            settings.n_bootstrap,
            settings.seed,
        )
        return UtilityRow(anonymizer, measure, *found, len(measured), True, clean, chance)

    for measure in ("ssim", "edge_f1"):
        if measure in settings.utility:
            values = [own[measure] for own, _ in pairs]
            others = [there[measure] for _, there in pairs if there[measure] is not None]
            chance = float(np.mean(others)) if others else None
            yield row(measure, values, pairs, bootstrap_mean, 1.0, chance)
    if "face_detection_rate" in settings.utility:
        found = [own["face_found"] for own, _ in pairs]
        clean = float(np.mean([there["face_found"] for _, there in pairs]))
        yield row("face_detection_rate", found, pairs, bootstrap_identities, clean)
    posed = [pair for pair in pairs if not np.isnan(_yaw(pair[1]))]
    if "pose_consistency" in settings.utility and posed:
        turned = np.asarray([[_yaw(row) for row in pair] for pair in posed])
        got, wanted = yaw_classes(turned).T
        same = ~np.isnan(turned[:, 0]) & (got == wanted)
        yield row(
            "pose_consistency", same, posed, bootstrap_identities, 1.0, majority_share(wanted)
        )
    for attribute, truth in _truths(groups) if "attributes" in settings.utility else ():
        readable = [
            pair
            for pair in pairs
            if truth.get(pair[0]["identity"]) is not None and _read(pair[0], attribute)
        ]
        if readable:
            true = [str(truth[own["identity"]]) for own, _ in readable]
            own, there = (
                [
                    _read(pair[side], attribute) == value
                    for pair, value in zip(readable, true, strict=True)
                ]
                for side in (0, 1)
            )
            yield row(
                f"{attribute}_agreement",
                own,
                readable,
                bootstrap_identities,
                float(np.mean(there)),
                majority_share(true),
            )


def _yaw(row: MeasuredImage) -> float:
    """The yaw proxy; NaN where no face was found."""
    return float("nan") if row["yaw"] is None else float(row["yaw"])


def _truths(groups: pa.Table | None) -> Iterable[tuple[str, dict[str, str | None]]]:
    """Each attribute with its value by identity."""
    if groups is None:
        return
    identities = groups["identity"].to_pylist()
    for attribute in (name for name in groups.column_names if name != "identity"):
        yield attribute, dict(zip(identities, groups[attribute].to_pylist(), strict=True))


def _read(row: MeasuredImage, attribute: str) -> str | None:
    """What the probe of an attribute read in an image, such as ``female``; None without probe."""
    readings = (text.partition("=") for text in row["attributes"] or ())
    return next((value for name, _, value in readings if name == attribute), None)


def frechet_rows(
    anonymizer: str, features: str, table: pa.Table, settings: EvaluationSettings
) -> Iterator[UtilityRow]:
    """Fréchet distance of the features of an anonymizer's images and of their originals.

    ``clear`` is the distance of one half of the originals to the other half: with half as many
    images in each set, it is more than what the number of images alone may cause.

    Args:
        features: whose they are, for the measure's name.
        table: embeddings with the views ``original`` and ``anonymizer``, of the images to use.
    """
    rows_of_anonymizer = table.filter(pc.equal(table["view"], anonymizer)).sort_by("sample_id")
    images = table.filter(pc.equal(table["view"], ORIGINAL)).sort_by("sample_id")
    images = images.filter(
        pc.is_in(images["sample_id"], rows_of_anonymizer["sample_id"].combine_chunks())
    )
    if len(images) < 2:
        return
    anonymized, originals = embedding_matrix(rows_of_anonymizer), embedding_matrix(images)

    def distance(rows: npt.NDArray[np.int64]) -> float:
        return frechet_distance(anonymized[rows], originals[rows])

    value, low, high = bootstrap_statistic(
        distance,
        np.asarray(images["identity"].to_pylist()),
        settings.confidence_level,
        FRECHET_N_BOOTSTRAP,
        settings.seed,
    )
    clean = frechet_distance(originals[::2], originals[1::2]) if len(originals) >= 4 else None
    measure, low = f"frechet_{features}", max(0.0, low)
    yield UtilityRow(anonymizer, measure, value, low, high, len(rows_of_anonymizer), False, clean)
