"""How useful anonymized images still are, so that a grey rectangle does not win.

=========================  ========================================================================
``ssim``                   likeness to the original, pixel by pixel (:mod:`cldmray.metrics.image_similarity`)
``edge_f1``                Canny edges of the image and of the original, 2 pixels of tolerance
``face_detection_rate``            share of images in which YuNet sees a face
``pose_consistency``         share of images whose head is turned left, right or not, like
                           the original's (:mod:`cldmray.metrics.pose`); no face is no agreement
``<attribute>_agreement``  share of images from which a linear probe, trained on clean images of
                           other people, reads the person's true sex, age, ...; a style that it does
                           not know may mislead it
``frechet_<features>``     Fréchet distance to the originals, in the features of an attacker that depends
                           on no anonymizer
=========================  ========================================================================
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cldmray.attackers.base import Attacker
from cldmray.attackers.data import Table
from cldmray.conditions.canny import Canny
from cldmray.config.audit import AuditConfig
from cldmray.detection.yunet import YuNet
from cldmray.engine.artifacts import Artifact
from cldmray.engine.stages import Stages
from cldmray.engine.utility import TOLERANCE, Chosen, Seen, choose, measure_utility
from cldmray.errors import ConfigError, MissingDependencyError
from cldmray.evaluation.utility import MeasuredImage, frechet_rows, image_rows
from cldmray.faces.records import ORIGINAL
from cldmray.hashing import fingerprint_rows
from cldmray.metrics.image_similarity import WINDOW
from cldmray.results.audit import UtilityRow


class Utility:
    """Measures every anonymizer's images on the same evaluation images.

    Args:
        config: the audit; ``audit.utility`` names the measures.
        stages: runs and remembers the stage.
        notes: caveats for the report are appended here.
    """

    def __init__(self, config: AuditConfig, stages: Stages, notes: list[str]) -> None:
        self.config = config
        self.stages = stages
        self.notes = notes
        self.seen: list[Seen] = [name for name in config.audit.utility if name != "frechet"]

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
                    f"audit.utility: face_detection_rate and pose_consistency need the extra recognizer ({error}); "
                    "install it, or leave both out of audit.utility"
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
        embedded: Mapping[str, Table],
    ) -> list[UtilityRow]:
        """Rows of all anonymizers and measures.

        Args:
            faces: the faces table.
            anonymized: table of each anonymizer, by its key.
            embedded: embeddings by the attacker's name.
        """
        settings = self.config.audit
        if not settings.utility:
            return []
        tables = list(anonymized.values())
        chosen = choose(faces, tables, settings.n_utility_images, settings.seed)
        groups = self.config.faces.groups() if "attributes" in self.seen else None
        views = self._views(faces, tables, chosen, groups) if self.seen else {}
        if groups is not None and not any(row["attributes"] for row in views[ORIGINAL].values()):
            self.notes.append(
                "No agreement of attributes was measured: no images of attacker people show "
                "two values of one."
            )
        features = self._features(embedded, chosen) if "frechet" in settings.utility else None
        rows: list[UtilityRow] = []
        for name in (self.config.anonymizers[key].name for key in anonymized):
            pairs = [
                (row, views[ORIGINAL][sample])
                for sample, row in sorted(views.get(name, {}).items())
            ]
            rows += image_rows(name, pairs, groups, settings)
            if features is not None:
                rows += frechet_rows(name, *features, settings)
        return rows

    def _views(
        self,
        faces: Artifact,
        tables: list[Artifact],
        chosen: list[Chosen],
        groups: pa.Table | None,
    ) -> dict[str, dict[str, MeasuredImage]]:
        settings: dict[str, Any] = {"measures": sorted(self.seen), "chosen": chosen}
        settings["tolerance"], settings["edges"] = TOLERANCE, Canny()
        if self._finds_faces:
            settings["detector"] = YuNet()
        if groups is not None:
            settings["groups"] = fingerprint_rows(map(repr, groups.to_pylist()))
        stage = self.stages.run(
            "utility",
            settings,
            [table.key for table in (faces, *tables)],
            lambda folder: measure_utility(
                faces, tables, chosen, self.seen, groups, self.config.engine, folder
            ),
        )
        views: dict[str, dict[str, MeasuredImage]] = {}
        for row in stage.read().to_pylist():
            views.setdefault(row["view"], {})[row["sample_id"]] = row
        return views

    def _features(
        self, embedded: Mapping[str, Table], chosen: list[Chosen]
    ) -> tuple[str, pa.Table] | None:
        """Name of the attacker whose features are compared, and its embeddings of what was chosen."""
        attacker = features_attacker(self.config.attackers)
        if attacker is None or attacker.name not in embedded:
            self.notes.append(
                "No Fréchet distance was measured: it takes the features of an attacker that "
                "depends on no anonymizer and reads images as they are, such as pretrained "
                "or clean_trained."
            )
            return None
        table = embedded[attacker.name].read()
        samples = pa.array([one.sample_id for one in chosen], pa.string())
        return attacker.name, table.filter(pc.is_in(table["sample_id"], samples))


def features_attacker(attackers: Mapping[str, Attacker]) -> Attacker | None:
    """The attacker whose embeddings serve as features: the first without training, else the first.

    It must be able to compare any two images; see :attr:`Attacker.compares_all_images`.
    """
    suitable = [attacker for attacker in attackers.values() if attacker.compares_all_images]
    return min(suitable, key=lambda attacker: attacker.has_seed, default=None)
