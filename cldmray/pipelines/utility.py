"""How useful anonymized images still are, so that a grey rectangle does not win.

=========================  ======================================================================
``ssim``                   similarity to the original (:mod:`cldmray.metrics.image_similarity`)
``edge_f1``                Canny edges of the image and of the original, 2 pixels of tolerance
``face_detection_rate``    share of images in which YuNet finds a face
``pose_consistency``       share of images whose head is turned left, right or not, like the
                           original's (:mod:`cldmray.metrics.pose`); no face is no consistency
``<attribute>_agreement``  share of images from which a linear probe, trained on clean images of
                           other people, reads the person's true sex, age, ...; a style that it
                           does not know may mislead it
``frechet_<features>``     Fréchet distance to the originals, in the features of an attacker that
                           depends on no anonymizer
=========================  ======================================================================
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cldmray.attackers.base import Attacker
from cldmray.conditions.canny import Canny
from cldmray.config.audit import AuditConfig
from cldmray.detection.yunet import YuNet
from cldmray.engine.artifacts import Artifact
from cldmray.engine.map_stages.untouched import compare_pixels
from cldmray.engine.map_stages.utility import (
    TOLERANCE,
    ImageMeasure,
    UtilityChoice,
    choose_images,
    measure_utility,
)
from cldmray.engine.stages import StageHandle, Stages, StageSpec
from cldmray.errors import ConfigError, MissingDependencyError
from cldmray.evaluation.utility import MeasuredImage, frechet_rows, image_rows, untouched_faces
from cldmray.faces.records import ORIGINAL
from cldmray.hashing import fingerprint_rows
from cldmray.metrics.image_similarity import WINDOW
from cldmray.report.formatting import percent
from cldmray.results.audit import UtilityRow
from cldmray.results.content import UntouchedFaces

NO_FEATURES = (
    "No Fréchet distance was measured: it takes the features of an attacker that depends on no "
    "anonymizer and reads images as they are, such as pretrained or clean_trained."
)


@dataclass(frozen=True)
class UtilityResult:
    """What the measures of utility came to.

    Attributes:
        rows: of all anonymizers and measures.
        notes: caveats for the report.
        untouched: of each anonymizer, the most untouched first.
    """

    rows: list[UtilityRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    untouched: list[UntouchedFaces] = field(default_factory=list)


@dataclass(frozen=True)
class UtilityMeasurement:
    """Measurements that were started.

    Attributes:
        keys: of the anonymizers.
        choices: the images that are measured.
        groups: the attributes of people that the source knows, where they are measured.
        stage: takes all measures that need the images; None where none is asked for.
        pixels: compares the pixels of all anonymized faces with those of their originals; None
            where there are none.
    """

    keys: Sequence[str]
    choices: list[UtilityChoice]
    groups: pa.Table | None
    stage: StageHandle | None
    pixels: StageHandle | None


class Utility:
    """Measures every anonymizer's images on the same evaluation images.

    Args:
        config: the audit; ``audit.utility`` names the measures.
        stages: runs and remembers the stage.
    """

    def __init__(self, config: AuditConfig, stages: Stages) -> None:
        self.config = config
        self.stages = stages
        self.seen: list[ImageMeasure] = [name for name in config.audit.utility if name != "frechet"]

    def check(self) -> None:
        """Find out before any work starts whether everything is there.

        Raises:
            MissingDependencyError: faces are to be found without the extra ``recognizer``.
            ConfigError: the images are too small for SSIM.
        """
        if self._finds_faces:
            try:
                YuNet().version()
            except MissingDependencyError as error:
                raise MissingDependencyError(
                    "audit.utility: face_detection_rate and pose_consistency need the extra "
                    f"recognizer ({error}); install it, or leave both out of audit.utility"
                ) from error
        size = self.config.faces.size
        if "ssim" in self.seen and size < WINDOW:
            raise ConfigError(
                f"audit.utility: ssim needs images of at least {WINDOW} pixels, and faces.size "
                f"is {size}"
            )

    @property
    def _finds_faces(self) -> bool:
        return bool({"face_detection_rate", "pose_consistency"} & set(self.seen))

    def run(
        self,
        faces: Artifact,
        anonymized: Mapping[str, Artifact],
        embedded: Mapping[str, pa.Table],
    ) -> UtilityResult:
        """Measure all anonymizers.

        Args:
            faces: the table of originals.
            anonymized: table of each anonymizer, by its key.
            embedded: embeddings of evaluated people, by the attacker's name.
        """
        return self.result(self.start(faces, anonymized), embedded)

    def start(self, faces: Artifact, anonymized: Mapping[str, Artifact]) -> UtilityMeasurement:
        """Measure the images beside whatever else runs; no attacker is needed for that."""
        settings, tables = self.config.audit, list(anonymized.values())
        pixels = self._pixels(faces, tables) if tables else None
        if not settings.utility:
            return UtilityMeasurement(list(anonymized), [], None, None, pixels)
        choices = choose_images(faces, tables, settings.n_utility_images, settings.seed)
        groups = self.config.faces.groups() if "attributes" in self.seen else None
        stage = self._stage(faces, tables, choices, groups) if self.seen else None
        return UtilityMeasurement(list(anonymized), choices, groups, stage, pixels)

    def result(
        self, measurement: UtilityMeasurement, embedded: Mapping[str, pa.Table]
    ) -> UtilityResult:
        """Rows of all measures, once they have been taken.

        Args:
            measurement: what :meth:`start` returned.
            embedded: embeddings of evaluated people, by the attacker's name.
        """
        settings, groups, result = self.config.audit, measurement.groups, UtilityResult()
        views: dict[str, dict[str, MeasuredImage]] = {}
        if measurement.stage is not None:
            for row in self.stages.result(measurement.stage).read().to_pylist():
                views.setdefault(row["view"], {})[row["sample_id"]] = row
        if groups is not None and not any(row["attributes"] for row in views[ORIGINAL].values()):
            result.notes.append(
                "No agreement of attributes was measured: no images of attacker people show "
                "two values of one."
            )
        features = None
        if "frechet" in settings.utility:
            features = self._features(embedded, measurement.choices)
            if features is None:
                result.notes.append(NO_FEATURES)
        for name in (self.config.anonymizers[key].name for key in measurement.keys):
            pairs = [
                (row, views[ORIGINAL][sample])
                for sample, row in sorted(views.get(name, {}).items())
            ]
            result.rows.extend(image_rows(name, pairs, groups, settings))
            if features is not None:
                result.rows.extend(frechet_rows(name, *features, settings))
        result.untouched.extend(self._untouched(measurement, embedded))
        return result

    def _untouched(
        self, measurement: UtilityMeasurement, embedded: Mapping[str, pa.Table]
    ) -> list[UntouchedFaces]:
        """Untouched faces of each anonymizer, the most untouched first."""
        if measurement.pixels is None:
            return []
        pixels = self.stages.result(measurement.pixels).read()
        attacker = features_attacker(self.config.attackers)
        embeddings = None if attacker is None else embedded.get(attacker.name)
        name = None if attacker is None else attacker.name
        names = [self.config.anonymizers[key].name for key in measurement.keys]
        counted = (
            untouched_faces(anonymizer, pixels, name, embeddings, self.config.audit)
            for anonymizer in names
        )
        return sorted(
            (untouched for untouched in counted if untouched is not None),
            key=lambda untouched: (-untouched.value, untouched.anonymizer),
        )

    def _pixels(self, faces: Artifact, tables: list[Artifact]) -> StageHandle:
        def produce(folder: str) -> None:
            compare_pixels(faces, tables, folder)

        title, resources = "compare pixels", self.config.engine.task_stage
        return self.stages.submit(
            StageSpec("pixels", {}, [faces, *tables], produce, title, resources)
        )

    def _stage(
        self,
        faces: Artifact,
        tables: list[Artifact],
        choices: list[UtilityChoice],
        groups: pa.Table | None,
    ) -> StageHandle:
        measures, engine = self.seen, self.config.engine
        settings: dict[str, Any] = {"measures": sorted(measures), "chosen": choices}
        settings["tolerance"], settings["edges"] = TOLERANCE, Canny()
        if self._finds_faces:
            settings["detector"] = YuNet()
        if groups is not None:
            settings["groups"] = fingerprint_rows(map(repr, groups.to_pylist()))

        def produce(folder: str) -> None:
            measure_utility(faces, tables, choices, measures, groups, engine, folder)

        title, resources = "measure utility", engine.pool_stage(0.0)
        return self.stages.submit(
            StageSpec("utility", settings, [faces, *tables], produce, title, resources)
        )

    def _features(
        self, embedded: Mapping[str, pa.Table], choices: list[UtilityChoice]
    ) -> tuple[str, pa.Table] | None:
        """Name of the attacker whose features are compared, and its embeddings of the choices."""
        attacker = features_attacker(self.config.attackers)
        if attacker is None or attacker.name not in embedded:
            return None
        table = embedded[attacker.name]
        samples = pa.array([choice.sample_id for choice in choices], pa.string())
        return attacker.name, table.filter(pc.is_in(table["sample_id"], samples))


def untouched_notes(untouched: Iterable[UntouchedFaces], controls: Container[str]) -> list[str]:
    """What the report says first: faces that an anonymizer has left as they were.

    Args:
        controls: anonymizers that are meant to leave them so.
    """
    notes = []
    for counted in untouched:
        if not counted.n_untouched or counted.anonymizer in controls:
            continue
        reasons = [f"{counted.n_unchanged} have the pixels of their original"]
        if counted.n_matched is not None:
            reasons.append(
                f"{counted.n_matched} match it by {counted.recognizer} (false match rate 1e-3)"
            )
        notes.append(
            f"{counted.anonymizer} leaves {counted.n_untouched} of {counted.n_images} faces "
            f"untouched ({percent(counted.value)}): {' and '.join(reasons)}; for example images "
            f"{', '.join(counted.samples[:3])}."
        )
    return notes


def features_attacker(attackers: Mapping[str, Attacker]) -> Attacker | None:
    """The attacker whose embeddings serve as features: the first without training, else the first.

    It must be able to compare any two images; see :attr:`Attacker.compares_all_images`.
    """
    suitable = [attacker for attacker in attackers.values() if attacker.compares_all_images]
    return min(suitable, key=lambda attacker: attacker.has_seed, default=None)
