"""How useful anonymized pictures still are, so that a grey rectangle does not win.

=========================  ========================================================================
``ssim``                   likeness to the original, pixel by pixel (:mod:`cldmray.metrics.image_similarity`)
``edge_f1``                Canny edges of the picture and of the original, 2 pixels of tolerance
``faces_found``            share of pictures in which YuNet sees a face
``pose_agreement``         share of pictures whose head is turned left, right or not, like
                           the original's (:mod:`cldmray.metrics.pose`); no face is no agreement
``<attribute>_agreement``  share of pictures from which a linear probe, trained on clear photos of
                           other people, reads the person's true sex, age, ...; a style that it does
                           not know may mislead it
``frechet_<features>``     Fréchet distance to the originals, in the features of a rung that depends
                           on no anonymizer
=========================  ========================================================================
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cldmray.attackers.base import EmbeddingRung, ReadyRung, Rung
from cldmray.attackers.distilled import TaughtRung
from cldmray.conditions.canny import Canny
from cldmray.config.audit import AuditConfig
from cldmray.detection.yunet import YuNet
from cldmray.engine.artifacts import StageTable
from cldmray.engine.stages import Stages
from cldmray.engine.utility import TOLERANCE, Chosen, Seen, choose, measure_utility
from cldmray.errors import ConfigError, MissingDependencyError
from cldmray.evaluation.utility import Row, frechet_rows, picture_rows
from cldmray.faces.records import ORIGINAL
from cldmray.hashing import fingerprint_rows
from cldmray.metrics.image_similarity import WINDOW
from cldmray.results.audit import UtilityRow


class Utility:
    """Measures every anonymizer's pictures on the same evaluation photographs.

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
            ConfigError: the pictures are too small for SSIM.
        """
        if self._finds_faces:
            try:
                YuNet().version()
            except MissingDependencyError as error:
                raise MissingDependencyError(
                    f"audit.utility: faces_found and pose need the extra recognizer ({error}); "
                    "install it, or leave both out of audit.utility"
                ) from error
        size = self.config.faces.size
        if "ssim" in self.seen and size < WINDOW:
            raise ConfigError(
                f"audit.utility: ssim needs pictures of at least {WINDOW} pixels, and faces.size "
                f"is {size}"
            )

    @property
    def _finds_faces(self) -> bool:
        return bool({"faces_found", "pose"} & set(self.seen))

    def run(
        self,
        faces: StageTable,
        redrawn: Mapping[str, StageTable],
        embedded: Mapping[str, StageTable],
    ) -> list[UtilityRow]:
        """Rows of all anonymizers and measures.

        Args:
            faces: the faces table.
            redrawn: table of each anonymizer, by its key.
            embedded: embeddings by the rung's name.
        """
        settings = self.config.audit
        if not settings.utility:
            return []
        tables = list(redrawn.values())
        chosen = choose(faces, tables, settings.utility_pictures, settings.seed)
        groups = self.config.faces.groups() if "attributes" in self.seen else None
        views = self._views(faces, tables, chosen, groups) if self.seen else {}
        if groups is not None and not any(row["attributes"] for row in views[ORIGINAL].values()):
            self.notes.append(
                "No agreement of attributes was measured: no photographs of attacker people show "
                "two values of one."
            )
        features = self._features(embedded, chosen) if "frechet" in settings.utility else None
        rows: list[UtilityRow] = []
        for name in (self.config.anonymizer[key].name for key in redrawn):
            pairs = [
                (row, views[ORIGINAL][sample])
                for sample, row in sorted(views.get(name, {}).items())
            ]
            rows += picture_rows(name, pairs, groups, settings)
            if features is not None:
                rows += frechet_rows(name, *features, settings)
        return rows

    def _views(
        self,
        faces: StageTable,
        tables: list[StageTable],
        chosen: list[Chosen],
        groups: pa.Table | None,
    ) -> dict[str, dict[str, Row]]:
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
        views: dict[str, dict[str, Row]] = {}
        for row in stage.read().to_pylist():
            views.setdefault(row["view"], {})[row["sample_id"]] = row
        return views

    def _features(
        self, embedded: Mapping[str, StageTable], chosen: list[Chosen]
    ) -> tuple[str, pa.Table] | None:
        """Name of the rung whose features are compared, and its embeddings of what was chosen."""
        rung = features_rung(self.config.attack)
        if rung is None or rung.name not in embedded:
            self.notes.append(
                "No Fréchet distance was measured: it takes the features of an attacker that "
                "depends on no anonymizer and reads pictures as they are, such as off_the_shelf "
                "or clear_trained."
            )
            return None
        table = embedded[rung.name].read()
        samples = pa.array([one.sample_id for one in chosen], pa.string())
        return rung.name, table.filter(pc.is_in(table["sample_id"], samples))


def features_rung(rungs: Mapping[str, Rung]) -> EmbeddingRung | None:
    """The rung whose embeddings serve as features: the first that learns nothing, else the first.

    It must embed photographs and pictures alike, read both as they are, be the same for every
    anonymizer, and know faces.
    """
    fit = [
        rung
        for rung in rungs.values()
        if isinstance(rung, EmbeddingRung)
        and not rung.per_anonymizer
        and rung.probe_condition is None
        and rung.knows_clear_faces
        and not isinstance(rung, TaughtRung)
    ]
    return min(fit, key=lambda rung: not isinstance(rung, ReadyRung), default=None)
