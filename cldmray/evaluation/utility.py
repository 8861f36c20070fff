"""What anonymized images still hold, with intervals over identities: utility, faces, attributes."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cldmray.attackers.attribute_inference import Flags, Labelled, read_attribute
from cldmray.evaluation.identification import view_of
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.faces.records import ORIGINAL, embedding_matrix
from cldmray.gallery.protocols import EmbeddingSet
from cldmray.hashing import unit_hash
from cldmray.metrics.confidence import bootstrap_mean, bootstrap_statistic
from cldmray.metrics.image_similarity import frechet_distance
from cldmray.metrics.pose import majority_share, yaw_classes
from cldmray.metrics.rates import rate_interval
from cldmray.results.audit import UtilityRow
from cldmray.results.content import InferenceRow, UntouchedFaces

MeasuredImage = dict[str, Any]
"""A row of ``engine.map_stages.utility.MEASURED``."""
ImagePair = tuple[MeasuredImage, MeasuredImage]
"""Of an anonymized image, and of its original."""
FRECHET_N_BOOTSTRAP = 100
UNCHANGED = 1.0
"""Mean absolute difference, in grey levels, up to which the pixels of a face are unchanged."""
MATCH_FMR = 1e-3
"""False match rate of the recognizer that tells whether a face is still its original's."""
MOST_ORIGINALS = 2000
"""Originals that set the recognizer's threshold. Where there are more, their hash chooses."""
INFERENCE_N_BOOTSTRAP = 200
MOST_LISTED = 100
"""Untouched images that are listed."""


class Measurement(NamedTuple):
    """One measure of one anonymizer, image by image.

    Attributes:
        measure: its name.
        values: of each image.
        pairs: the images that it was measured on, and their originals.
        is_rate: whether each value says if something was kept, so that their mean is a rate.
        clean: what clean images reach.
        chance: see :class:`cldmray.results.audit.UtilityRow`.
    """

    measure: str
    values: Sequence[float] | npt.NDArray[Any]
    pairs: list[ImagePair]
    is_rate: bool
    clean: float
    chance: float | None = None


def image_rows(
    anonymizer: str,
    pairs: list[ImagePair],
    groups: pa.Table | None,
    settings: EvaluationSettings,
) -> Iterator[UtilityRow]:
    """All measures of single images that ``settings.utility`` names.

    Args:
        pairs: of the anonymizer's images.
        groups: column ``identity`` and one for each attribute; null where unknown.
    """
    if not pairs:
        return
    for measured in _measurements(pairs, groups, settings.utility):
        identities = np.asarray([image["identity"] for image, _ in measured.pairs])
        value, low, high = (
            rate_interval(measured.values, identities, confidence_level=settings.confidence_level)
            if measured.is_rate
            else bootstrap_mean(measured.values, identities, **settings.bootstrap)
        )
        yield UtilityRow(
            anonymizer,
            measured.measure,
            value,
            low,
            high,
            n_images=len(measured.pairs),
            higher_is_better=True,
            clean=measured.clean,
            chance=measured.chance,
        )


def _measurements(
    pairs: list[ImagePair], groups: pa.Table | None, measures: Sequence[str]
) -> Iterator[Measurement]:
    for measure in ("ssim", "edge_f1"):
        if measure in measures:
            others = [image[measure] for _, image in pairs if image[measure] is not None]
            yield Measurement(
                measure,
                [image[measure] for image, _ in pairs],
                pairs,
                is_rate=False,
                clean=1.0,
                chance=float(np.mean(others)) if others else None,
            )
    if "face_detection_rate" in measures:
        yield Measurement(
            "face_detection_rate",
            [image["face_found"] for image, _ in pairs],
            pairs,
            is_rate=True,
            clean=float(np.mean([original["face_found"] for _, original in pairs])),
        )
    if "pose_consistency" in measures:
        yield from _pose(pairs)
    if "attributes" in measures:
        for attribute, truth in _truths(groups):
            yield from _agreement(attribute, truth, pairs)


def _pose(pairs: list[ImagePair]) -> Iterator[Measurement]:
    """Of the images whose original shows a face: whether its head is turned the same way."""
    posed = [pair for pair in pairs if not np.isnan(_yaw(pair[1]))]
    if not posed:
        return
    # (P, 2): yaw of the anonymized image and of its original; NaN where no face was found.
    yaws = np.asarray([[_yaw(image) for image in pair] for pair in posed])
    anonymized, originals = yaw_classes(yaws).T
    same = ~np.isnan(yaws[:, 0]) & (anonymized == originals)
    yield Measurement("pose_consistency", same, posed, True, 1.0, majority_share(originals))


def _agreement(
    attribute: str, truth: Mapping[str, str | None], pairs: list[ImagePair]
) -> Iterator[Measurement]:
    """Of the images whose attribute is known and was read: whether the true value was read."""
    readable = [
        pair
        for pair in pairs
        if truth.get(pair[0]["identity"]) is not None and _read(pair[0], attribute)
    ]
    if not readable:
        return
    values = [str(truth[image["identity"]]) for image, _ in readable]
    anonymized, originals = (
        [
            _read(pair[side], attribute) == value
            for pair, value in zip(readable, values, strict=True)
        ]
        for side in (0, 1)
    )
    yield Measurement(
        f"{attribute}_agreement",
        anonymized,
        readable,
        is_rate=True,
        clean=float(np.mean(originals)),
        chance=majority_share(values),
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

    ``clean`` is the distance of one half of the originals to the other half: with half as many
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
        confidence_level=settings.confidence_level,
        n_bootstrap=FRECHET_N_BOOTSTRAP,
        seed=settings.seed,
    )
    clean = frechet_distance(originals[::2], originals[1::2]) if len(originals) >= 4 else None
    measure, low = f"frechet_{features}", max(0.0, low)
    yield UtilityRow(anonymizer, measure, value, low, high, len(rows_of_anonymizer), False, clean)


def untouched_faces(
    anonymizer: str,
    pixels: pa.Table,
    recognizer: str | None,
    embeddings: pa.Table | None,
    settings: EvaluationSettings,
) -> UntouchedFaces | None:
    """How many images of an anonymizer still show the face that they were made from.

    Args:
        pixels: rows of ``engine.map_stages.untouched.PIXELS``.
        recognizer: name of the attacker that has embedded the images; None: none has.
        embeddings: of it, with the views ``original`` and ``anonymizer``.

    Returns:
        None where the anonymizer has no image of an evaluated person.
    """
    rows = pixels.filter(pc.equal(pixels["view"], anonymizer)).sort_by("sample_id")
    if not len(rows):
        return None
    samples = rows["sample_id"].to_pylist()
    unchanged = rows["difference"].to_numpy() <= UNCHANGED
    threshold = None if embeddings is None else match_threshold(view_of(embeddings, ORIGINAL))
    matched = np.zeros(len(rows), bool)
    if embeddings is not None and threshold is not None:
        scores = own_scores(view_of(embeddings, anonymizer), view_of(embeddings, ORIGINAL))
        matched = np.array([scores[sample] > threshold for sample in samples])
    untouched = unchanged | matched
    share = rate_interval(
        untouched,
        np.asarray(rows["identity"].to_pylist()),
        confidence_level=settings.confidence_level,
    )
    return UntouchedFaces(
        anonymizer,
        n_images=len(rows),
        n_untouched=int(untouched.sum()),
        n_matched=None if threshold is None else int(matched.sum()),
        n_unchanged=int(unchanged.sum()),
        value=share.value,
        low=share.low,
        high=share.high,
        recognizer=None if threshold is None else recognizer,
        threshold=threshold,
        samples=[samples[row] for row in np.flatnonzero(untouched)[:MOST_LISTED]],
    )


def match_threshold(originals: EmbeddingSet, fmr: float = MATCH_FMR) -> float | None:
    """The lowest threshold that at most a share ``fmr`` of pairs of two people exceed.

    Args:
        originals: at most ``MOST_ORIGINALS`` of them are compared.

    Returns:
        None where there are fewer than 1 / ``fmr`` pairs.
    """
    order = np.argsort([unit_hash("match", sample) for sample in originals.sample_ids.tolist()])
    some = originals.take(order[:MOST_ORIGINALS])
    first, second = np.triu_indices(len(some), 1)
    strangers = some.identities[first] != some.identities[second]
    scores = (some.vectors @ some.vectors.T)[first[strangers], second[strangers]]
    if len(scores) * fmr < 1:
        return None
    allowed = math.floor(fmr * len(scores) * (1 + 1e-12))
    return float(np.partition(scores, -allowed - 1)[-allowed - 1])


def own_scores(anonymized: EmbeddingSet, originals: EmbeddingSet) -> dict[str, float]:
    """Score of each anonymized image with its own original, by its sample id."""
    row_of = {sample: row for row, sample in enumerate(originals.sample_ids.tolist())}
    own = originals.vectors[[row_of[sample] for sample in anonymized.sample_ids.tolist()]]
    scores = np.einsum("nd,nd->n", anonymized.vectors, own)
    return dict(zip(anonymized.sample_ids.tolist(), scores.tolist(), strict=True))


def inference_rows(
    anonymizer: str,
    attacker: str,
    learnt: pa.Table,
    probes: pa.Table,
    groups: pa.Table,
    settings: EvaluationSettings,
) -> Iterator[InferenceRow]:
    """What classifiers on an attacker's embeddings read of each attribute.

    Args:
        learnt: embeddings of attacker people, with the views ``original`` and ``anonymizer``.
        probes: the same of evaluated people.
        groups: column ``identity``, and one of text for each attribute; null where unknown.
    """
    for attribute, truth in _truths(groups):
        labelled = [_labelled(table, anonymizer, truth) for table in (learnt, probes)]
        read = read_attribute(*labelled)
        if read is None or len(set(labelled[1].values)) < 2:
            continue
        rows = probes.filter(pc.equal(probes["view"], anonymizer)).sort_by("sample_id")
        identities = [i for i in rows["identity"].to_pylist() if truth.get(i) is not None]
        values = np.asarray(labelled[1].values)

        def accuracy(
            some: npt.NDArray[np.int64], read: Flags = read, values: Any = values
        ) -> float:
            return balanced_accuracy(read[some], values[some])

        share = bootstrap_statistic(
            accuracy,
            np.asarray(identities),
            confidence_level=settings.confidence_level,
            n_bootstrap=INFERENCE_N_BOOTSTRAP,
            seed=settings.seed,
        )
        on_clean = [_labelled(table, ORIGINAL, truth) for table in (learnt, probes)]
        read_clean = read_attribute(*on_clean)
        yield InferenceRow(
            anonymizer,
            attacker,
            attribute,
            value=share.value,
            low=max(0.0, share.low),
            high=min(1.0, share.high),
            chance=1 / len(set(labelled[1].values)),
            clean=None
            if read_clean is None
            else balanced_accuracy(read_clean, np.asarray(on_clean[1].values)),
            n_images=len(values),
            n_identities=len(set(identities)),
            n_learnt_images=len(labelled[0].values),
        )


def balanced_accuracy(right: Flags, values: npt.NDArray[np.str_]) -> float:
    """Mean over the values of the share of their images that is right, in 0..1.

    >>> balanced_accuracy(np.array([True, True, False, False]), np.array(["a", "a", "a", "b"]))
    0.3333333333333333
    """
    _, classes = np.unique(values, return_inverse=True)
    return float(np.mean(np.bincount(classes, right) / np.bincount(classes)))


def _labelled(table: pa.Table, view: str, truth: Mapping[str, str | None]) -> Labelled:
    """The images of one view whose person's attribute is known, in order of their samples."""
    rows = table.filter(pc.equal(table["view"], view)).sort_by("sample_id")
    values = [truth.get(identity) for identity in rows["identity"].to_pylist()]
    kept = [row for row, value in enumerate(values) if value is not None]
    return Labelled(embedding_matrix(rows)[kept], [str(values[row]) for row in kept])
