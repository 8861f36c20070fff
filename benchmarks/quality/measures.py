"""The measures of the benchmark, each with its 95 % interval over identities and its goal."""

from typing import NamedTuple

import numpy as np

from cldmray.arrays import Images, Interval
from cldmray.conditions import Canny
from cldmray.detection.yunet import YuNet
from cldmray.metrics.confidence import bootstrap_mean, bootstrap_statistic
from cldmray.metrics.image_similarity import edge_f1, frechet_distance, psnr, ssim
from cldmray.metrics.rates import rate_interval
from cldmray.recognizers.base import SAME_IDENTITY
from cldmray.recognizers.sface import SFace
from quality.drawing import BLUR_SIGMA, BLURRED_AT, Gallery
from quality.subjects import Subjects

EDGE_F1_GOAL = 0.8
EDGE_GAP_GOAL = 0.25
DETECTED_GOALS = {"canny": 0.98, "none": 0.95}
SAME_IDENTITY_GOAL = 0.15
FRECHET_RATIO_GOAL = 0.5
PSNR_GOAL = 31.0
SPEED_GOAL = 25.0
TOLERANCE = 2.0


class Row(NamedTuple):
    """One line of the table; ``goal`` and ``met`` are None where there is none."""

    measure: str
    interval: Interval
    goal: str | None = None
    met: bool | None = None


def at_least(measure: str, interval: Interval, bound: float) -> Row:
    return Row(measure, interval, f">= {bound:g}", interval.value >= bound)


def at_most(measure: str, interval: Interval, bound: float) -> Row:
    return Row(measure, interval, f"<= {bound:g}", interval.value <= bound)


def edge_rows(subjects: Subjects, gallery: Gallery) -> list[Row]:
    """How well outputs keep the Canny map that they were drawn from.

    Another person's map is compared with the output at scale 1, and at scale 0 too: outputs at
    scale 0 may have more or fewer edges, which alone changes their agreement with any map.
    """
    given = gallery.maps["canny"][..., 0]
    on, off = (Canny()(gallery.images[name])[..., 0] for name in ("canny", "canny_off"))
    own, without = edge_f1(given, on, TOLERANCE), edge_f1(given, off, TOLERANCE)
    others = edge_f1(np.roll(given, 1, axis=0), on, TOLERANCE)
    followed = bootstrap_mean(own - others, subjects.identities)
    excess = bootstrap_mean(without - others, subjects.identities)
    chance = edge_f1(np.roll(given, 1, axis=0), off, TOLERANCE)
    leaked = bootstrap_mean(without - chance, subjects.identities)
    label = f"edge F1 ({TOLERANCE:g} px)"
    return [
        at_least(
            f"{label}, canny, scale 1", bootstrap_mean(own, subjects.identities), EDGE_F1_GOAL
        ),
        Row(f"{label}, canny, scale 0", bootstrap_mean(without, subjects.identities)),
        Row(f"{label}, another person's map", bootstrap_mean(others, subjects.identities)),
        at_least(f"{label}, scale 1 less another's map", followed, EDGE_GAP_GOAL),
        Row(f"{label}, scale 0 less scale 0 and another's map", leaked),
        at_most(f"{label}, scale 0 less another's map", excess, 0.0),
    ]


def detection_rows(subjects: Subjects, gallery: Gallery) -> list[Row]:
    """In how many images YuNet sees a face."""
    seen = {"images": subjects.given, **gallery.images}
    rows = []
    for name in ("images", *gallery.maps, "none", "round_trip"):
        detected = [face is not None for face in YuNet().detect(seen[name])]
        interval = rate_interval(detected, subjects.identities)
        label = f"YuNet detects a face, {name}"
        goal = DETECTED_GOALS.get(name)
        rows.append(Row(label, interval) if goal is None else at_least(label, interval, goal))
    return rows


def recognition_rows(
    subjects: Subjects, gallery: Gallery, sface: SFace, peer: Gallery | None
) -> list[Row]:
    """Pairs that SFace takes for one person, and distances of its features.

    The Fréchet distances are to other images of the same people. Their ratio to those of a peer is
    taken over the same resampled people.
    """
    identities = subjects.identities
    given, others = sface.embed(subjects.given), sface.embed(subjects.others)
    features = {name: sface.embed(images) for name, images in gallery.images.items()}

    def same(first: np.ndarray, second: np.ndarray) -> Interval:
        return rate_interval((first * second).sum(1) > SAME_IDENTITY, identities)

    label = f"SFace cosine > {SAME_IDENTITY} to the image"
    rows = [at_most(f"{label}, canny", same(given, features["canny"]), SAME_IDENTITY_GOAL)]
    rows += [
        Row(f"{label}, {name}", same(given, features[name]))
        for name in (*gallery.maps, "none", "round_trip", "blurred")
        if name != "canny"
    ]
    rows.append(Row(f"{label}, another image", same(given, others)))
    rows.append(Row(f"{label}, another person", same(given, np.roll(others, 1, axis=0))))

    def distance(own: np.ndarray, rows: np.ndarray | slice = slice(None)) -> float:
        return frechet_distance(own[rows], others[rows])

    named = {name: features[name] for name in (*gallery.maps, "none", "blurred", "round_trip")}
    rows += [
        Row(
            f"Fréchet distance (SFace), {name}",
            bootstrap_statistic(lambda rows, own=own: distance(own, rows), identities),
        )
        for name, own in {**named, "real images": given}.items()
    ]
    if peer is None:
        return rows
    for name in (*peer.maps, "none"):
        own, others_own = features[name], sface.embed(peer.images[name])

        def ratio(
            rows: np.ndarray, own: np.ndarray = own, others_own: np.ndarray = others_own
        ) -> float:
            return distance(own, rows) / distance(others_own, rows)

        interval = bootstrap_statistic(ratio, identities)
        rows.append(
            at_most(f"the same as a share of the peer's, {name}", interval, FRECHET_RATIO_GOAL)
        )
    return rows


def speed_rows(gallery: Gallery) -> list[Row]:
    """Images that two cores draw, from the time that one thread computed."""
    rate = 2 / gallery.seconds
    return [at_least("images/s of two cores, canny", Interval(rate, rate, rate), SPEED_GOAL)]


def autoencoder_rows(subjects: Subjects, gallery: Gallery) -> list[Row]:
    """How much the autoencoder alone loses."""
    copies: Images = gallery.images["round_trip"]
    quality = bootstrap_mean(psnr(subjects.given, copies), subjects.identities)
    structure = bootstrap_mean(ssim(subjects.given, copies), subjects.identities)
    return [
        at_least("autoencoder PSNR in dB", quality, PSNR_GOAL),
        Row("autoencoder SSIM", structure),
    ]


def all_rows(subjects: Subjects, gallery: Gallery, sface: SFace, peer: Gallery | None) -> list[Row]:
    """Every row of one source's table; ``peer`` is what another model makes of the subjects."""
    return [
        *edge_rows(subjects, gallery),
        *detection_rows(subjects, gallery),
        *recognition_rows(subjects, gallery, sface, peer),
        *autoencoder_rows(subjects, gallery),
        *speed_rows(gallery),
    ]


def table(rows: list[Row]) -> str:
    """The rows as text; blurred images are blurred as :class:`Gallery` does."""
    lines = [f"{'measure':56s} {'value':>7s}  {'95 % interval':17s} goal"]
    for row in rows:
        value, low, high = row.interval
        verdict = "" if row.goal is None else f"{row.goal} {'met' if row.met else 'MISSED'}"
        lines.append(
            f"{row.measure:56s} {value:7.3f}  [{low:7.3f}, {high:7.3f}] {verdict}".rstrip()
        )
    return "\n".join([*lines, f"(blurred: sigma {BLUR_SIGMA:g} pixels of {BLURRED_AT})"])
