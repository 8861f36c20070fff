"""Linear probes that read attributes such as sex and age from images, trained on images.

Source of the idea: Alain and Bengio, "Understanding intermediate layers using linear classifier
probes", 2016; here the layer is the small image itself, so that no attacker need be trained.

Streams anonymized images beside their originals through actors that measure usefulness.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import ray

from cldmray.arrays import Images
from cldmray.conditions.canny import Canny
from cldmray.detection.alignment import fitted
from cldmray.detection.yunet import YuNet
from cldmray.engine.artifacts import LEAST_BLOCKS, Artifact, Slice, write_records
from cldmray.engine.cluster import TASK_CPUS, EngineConfig
from cldmray.engine.opened import Opened, map_opened
from cldmray.faces.records import ATTACKER, EVALUATION, ORIGINAL, decode_image, decode_images
from cldmray.hashing import unit_hash
from cldmray.metrics.image_similarity import edge_f1, ssim
from cldmray.metrics.pose import yaw_and_roll

Floats = npt.NDArray[np.float64]
SIDE = 16
"""Pixels that a probe sees a side. On 500 rendered images of 100 new people, 16 gave 80 %
for sex, 59 % for age and 56 % for skin tone (chance: 53, 35, 18 %), as much as 32."""
INVERSE_PENALTY = 0.1
MOST_IMAGES = 5000
MOST_STEPS = 300


class Probe(NamedTuple):
    """A fitted multinomial logistic regression on small images.

    Attributes:
        attribute: what it reads, such as ``sex``.
        classes: its values, K >= 2.
        weights, bias: shapes (K, features), (K,); the highest score wins.
    """

    attribute: str
    classes: list[str]
    weights: Floats
    bias: Floats

    def read(self, features: Floats) -> list[str]:
        """The value seen in each row of :func:`small_images`, length N."""
        best = (features @ self.weights.T + self.bias).argmax(1)
        return [self.classes[place] for place in best]


def small_images(images: Images) -> Floats:
    """Images (N, h, w, 3) as features: averaged to ``SIDE`` pixels a side, 0..1, one row each."""
    small = [cv2.resize(p, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for p in images]
    return np.asarray(small, np.float64).reshape(len(images), 3 * SIDE**2) / 255


def fit_probe(attribute: str, features: Floats, labels: list[str]) -> Probe | None:
    """Fit one probe; None where all labels are the same or there are none.

    Args:
        features: rows of :func:`small_images`, shape (N, features).
        labels: value of each row, length N.
    """
    from sklearn.linear_model import LogisticRegression

    classes = sorted(set(labels))
    if len(classes) < 2:
        return None
    centre, spread = features.mean(0), features.std(0) + 1e-6
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=MOST_STEPS)
    model.fit((features - centre) / spread, np.asarray(labels))
    weights, bias = np.asarray(model.coef_, np.float64), np.asarray(model.intercept_, np.float64)
    if len(classes) == 2:
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    weights = weights / spread
    return Probe(
        attribute, [str(name) for name in model.classes_], weights, bias - weights @ centre
    )


def fit_probes(faces: Artifact, groups: pa.Table) -> list[Probe]:
    """A probe for each attribute, fitted on clean images of the attacker's people.

    At most ``MOST_IMAGES`` of them are used, chosen by a hash of their sample id.

    Args:
        faces: the faces table.
        groups: column ``identity``, and one of text for each attribute; null where unknown.
    """
    columns = ["sample_id", "identity", "image"]
    images = faces.read(columns, ATTACKER).to_pylist()
    images = sorted(images, key=lambda row: unit_hash("attribute probe", row["sample_id"]))
    del images[MOST_IMAGES:]
    features = small_images(decode_images(row["image"] for row in images))
    probes = []
    for attribute in (name for name in groups.column_names if name != "identity"):
        value = dict(
            zip(groups["identity"].to_pylist(), groups[attribute].to_pylist(), strict=True)
        )
        rows = [i for i, row in enumerate(images) if value.get(row["identity"]) is not None]
        labels = [value[images[i]["identity"]] for i in rows]
        probe = fit_probe(attribute, features[rows], labels)
        if probe is not None:
            probes.append(probe)
    return probes


ImageMeasure = Literal["ssim", "edge_f1", "face_detection_rate", "pose_consistency", "attributes"]
"""What is measured image by image."""
BLOCKS_AT_ONCE = 16
"""Most blocks of tables that one task reads, of each only the chosen rows."""
TOLERANCE = 2.0
"""Pixels by which an edge may be shifted."""
MEASURED = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("view", pa.string(), nullable=False),
        pa.field("ssim", pa.float64()),
        pa.field("edge_f1", pa.float64()),
        pa.field("face_found", pa.bool_()),
        pa.field("yaw", pa.float64()),
        pa.field("roll", pa.float64()),
        pa.field("attributes", pa.list_(pa.string())),
    ]
)
"""One row an image; null is what was not asked for. ``view`` is the anonymizer or ``original``.

``ssim`` and ``edge_f1`` compare an anonymized image with its original, and an original with
another person's, which tells what any face reaches. ``yaw`` and ``roll`` are those of
:func:`cldmray.metrics.pose.yaw_and_roll`, null where no face was found. ``attributes`` holds what
the probes read, as ``sex=female``.
"""


class UtilityChoice(NamedTuple):
    """An original that is measured, and the sample of another person to compare it with."""

    sample_id: str
    other: str | None


def choose_images(
    faces: Artifact, anonymized: Sequence[Artifact], count: int, seed: int
) -> list[UtilityChoice]:
    """At most ``count`` evaluation images, spread over people and chosen by a hash.

    Images that more anonymizers have anonymized come first, then one of each person after the
    other.
    """
    anonymized_rows = [set(_evaluated(table)) for table in anonymized]
    images: dict[str, list[tuple[int, float, str]]] = defaultdict(list)
    for sample, identity in _evaluated(faces).items():
        absent = sum(sample not in samples for samples in anonymized_rows)
        images[identity].append((absent, unit_hash("utility", seed, sample), sample))
    order = sorted(
        (absent, turn, place, sample, identity)
        for identity, own in images.items()
        for turn, (absent, place, sample) in enumerate(sorted(own))
    )
    kept = [(sample, identity) for *_, sample, identity in order[:count]]
    choices = []
    for place, (sample, identity) in enumerate(kept):
        others = (name for name, other in kept[place + 1 :] + kept[:place] if other != identity)
        choices.append(UtilityChoice(sample, next(others, None)))
    return choices


def _evaluated(table: Artifact) -> dict[str, str]:
    """Identity of each evaluation sample of a table."""
    rows = table.read(["sample_id", "identity"], EVALUATION)
    return dict(zip(rows["sample_id"].to_pylist(), rows["identity"].to_pylist(), strict=True))


class UtilityActor(Opened):
    """Measures blocks of images; see :data:`MEASURED`."""

    def open(
        self,
        measures: Sequence[ImageMeasure],
        originals: Any,
        others: dict[str, str],
        probes: Sequence[Probe],
        threads: int,
    ) -> None:
        """Fetch the originals.

        Args:
            measures: which columns to fill.
            originals: reference to the encoded original of each chosen sample.
            others: sample of another person for each chosen sample that has one.
            probes: read the attributes.
            threads: of OpenCV.
        """
        cv2.setNumThreads(threads)
        self.measures = frozenset(measures)
        self.originals: dict[str, bytes] = ray.get(originals)
        self.others = others
        self.probes = probes

    def __call__(self, block: pa.Table) -> pa.Table:
        self.ensure_opened()
        views = pc.unique(block["view"]).to_pylist()
        parts = [self._measured(block.filter(pc.equal(block["view"], view))) for view in views]
        return pa.concat_tables([MEASURED.empty_table(), *parts])

    def _measured(self, block: pa.Table) -> pa.Table:
        """Rows of one view, whose images share one size."""
        table = block.select(["sample_id", "identity", "view"])
        keys = zip(block["sample_id"].to_pylist(), block["view"].to_pylist(), strict=True)
        partners = [self.others.get(s) if view == ORIGINAL else s for s, view in keys]
        images = decode_images(block["image"].to_pylist())
        columns = {
            **self._compared(partners, images),
            **self._faces(images),
            "attributes": self._attributes(images),
        }
        for field in list(MEASURED)[3:]:
            values = columns.get(field.name) or [None] * block.num_rows
            table = table.append_column(field, pa.array(values, field.type))
        return table.cast(MEASURED)

    def _compared(self, partners: list[str | None], images: Images) -> dict[str, list[Any]]:
        pairs = [(row, partner) for row, partner in enumerate(partners) if partner is not None]
        columns: dict[str, list[Any]] = {}
        if not pairs:
            return columns
        rows = [row for row, _ in pairs]
        given = np.stack([decode_image(self.originals[partner]) for _, partner in pairs])
        seen = fitted(images[rows], given.shape[1], given.shape[2])
        measured = {}
        if "ssim" in self.measures:
            measured["ssim"] = ssim(given, seen)
        if "edge_f1" in self.measures:
            edges = Canny()
            given, seen = edges(given)[..., 0], edges(seen)[..., 0]
            measured["edge_f1"] = edge_f1(given, seen, TOLERANCE)
        for name, values in measured.items():
            columns[name] = [None] * len(partners)
            for row, value in zip(rows, values, strict=True):
                columns[name][row] = float(value)
        return columns

    def _faces(self, images: Images) -> dict[str, list[Any]]:
        if not self.measures & {"face_detection_rate", "pose_consistency"}:
            return {}
        faces = YuNet().detect(images)
        turns = [(None, None) if f is None else yaw_and_roll(f.landmarks) for f in faces]
        return {
            "face_found": [face is not None for face in faces],
            "yaw": [yaw for yaw, _ in turns],
            "roll": [roll for _, roll in turns],
        }

    def _attributes(self, images: Images) -> list[Any]:
        if "attributes" not in self.measures:
            return []
        features = small_images(images)
        read = [[f"{p.attribute}={value}" for value in p.read(features)] for p in self.probes]
        return [[values[row] for values in read] for row in range(len(images))]


def measure_utility(
    faces: Artifact,
    anonymized: Sequence[Artifact],
    choices: Sequence[UtilityChoice],
    measures: Sequence[ImageMeasure],
    groups: pa.Table | None,
    engine: EngineConfig,
    folder: str,
) -> None:
    """Write what the chosen originals and their anonymized images look like to the measures.

    Args:
        faces: the faces table; its attacker people teach the probes.
        anonymized: table of each anonymizer.
        measures: which to take.
        groups: see :func:`cldmray.engine.map_stages.utility.fit_probes`; None reads no attributes.
        folder: gets a table of schema :data:`MEASURED`.

    Raises:
        MissingDependencyError: faces are looked for without the extra ``recognizer``.
    """
    sample_ids = [choice.sample_id for choice in choices]
    samples = pa.array(sample_ids, pa.string())
    rows = faces.read_samples(["sample_id", "image"], sample_ids)
    originals = dict(zip(rows["sample_id"].to_pylist(), rows["image"].to_pylist(), strict=True))
    others = {choice.sample_id: choice.other for choice in choices if choice.other is not None}
    probes = fit_probes(faces, groups) if groups is not None and "attributes" in measures else []
    pieces = [(piece, ORIGINAL) for piece in faces.blocks()]
    pieces += [(piece, "") for table in anonymized for piece in table.blocks()]

    def read(block: pa.Table) -> pa.Table:
        wanted = (pieces[place] for place in block["place"].to_pylist())
        return pa.concat_tables([_read(piece, view, samples) for piece, view in wanted])

    tasks = max(math.ceil(len(pieces) / BLOCKS_AT_ONCE), min(len(pieces), LEAST_BLOCKS))
    places = [{"place": place} for place in range(len(pieces))]
    images = ray.data.from_items(places, override_num_blocks=tasks).map_batches(
        read, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS
    )
    actor = UtilityActor(list(measures), ray.put(originals), others, probes, engine.threads)
    write_records(map_opened(images, actor, engine), folder, MEASURED)


def _read(piece: Slice, view: str, samples: pa.Array) -> pa.Table:
    """Rows of some samples of a block, with their view: the anonymizer where none is given."""
    columns = ["sample_id", "identity", "image", *([] if view else ["anonymizer"])]
    rows = piece.read_samples(columns, samples)
    given = pa.array([view] * len(rows), pa.string()) if view else rows["anonymizer"]
    return pa.table({**{name: rows[name] for name in columns[:3]}, "view": given})
