"""The settings of an audit: every wrong key or value is named before work starts."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from omegaconf import DictConfig
from pydantic import Field

from cldmray.anonymizers.base import Anonymizer
from cldmray.attackers.base import Attacker
from cldmray.config.instantiate import build, to_container
from cldmray.engine.cluster import EngineConfig
from cldmray.errors import ConfigError
from cldmray.evaluation.settings import Distinct, EvaluationSettings
from cldmray.faces.base import FaceSource
from cldmray.faces.records import ORIGINAL
from cldmray.faces.regions import Region
from cldmray.faces.splits import SplitConfig
from cldmray.gallery.protocols import GallerySettings
from cldmray.recognizers.base import with_face_crop
from cldmray.report.examples import ReportSettings
from cldmray.results.names import check_label
from cldmray.settings import checked_dataclass
from cldmray.tracking import TrackingConfig


@checked_dataclass
class AuditSettings(EvaluationSettings):
    """What an audit measures, beside what :class:`EvaluationSettings` says.

    Attributes:
        title: of the report and of the MLflow run.
        samples_per_image: times that the attacker sends each of its images through an anonymizer.
        n_training_seeds: times that every attacker is trained, each time with another seed. Rates
            are the means, and ``rank_1_by_seed`` tells how far apart the trainings are.
        max_invalid_fraction: share of unusable files, 0..1, above which the audit stops.
        min_clean_rank_1: rank-1 rate on clean images, 0..1, that the best encoder must reach
            before "no attack succeeded" counts as privacy.
        allow_trained_identities: whether people may be audited on whom an anonymizer was trained.
        n_example_images: example images in the report.
        n_utility_images: images of evaluation people that utility is measured on, at most.
        n_inference_images: images of attacker people at most, of each anonymizer, from which
            classifiers learn to read attributes; 0 measures no inference of attributes.
        attribution: whether the report says what carries the leak; see
            :mod:`cldmray.pipelines.attribution_study`.
        training_faces: images that the anonymizers were trained on; the nearest of them to every
            anonymized image is searched. None: unknown.
        regions: parts of the images, ``face`` and ``surroundings``, that attackers are tried on
            by themselves.
        dry_run: whether the audit ends once it has told what it would do, and at which cost.
    """

    title: str = "Face anonymization audit"
    samples_per_image: Annotated[int, Field(ge=1)] = 1
    n_training_seeds: Annotated[int, Field(ge=1)] = 1
    max_invalid_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    min_clean_rank_1: Annotated[float, Field(ge=0, le=1)] = 0.9
    allow_trained_identities: bool = False
    n_example_images: Annotated[int, Field(ge=0)] = 8
    n_utility_images: Annotated[int, Field(ge=2)] = 500
    n_inference_images: Annotated[int, Field(ge=0)] = 300
    attribution: bool = True
    training_faces: FaceSource | None = None
    regions: Distinct[Region] = dataclasses.field(default_factory=list)
    dry_run: bool = False


@dataclasses.dataclass(frozen=True)
class AuditConfig:
    """A whole audit, checked.

    Attributes:
        faces: where the images are.
        splits: which identities train, and which are audited.
        anonymizers: what is under audit, by key.
        attackers: who attacks, by key.
        engine: how the cluster is used.
        audit: what is measured.
        output: folder of the report.
        cache_dir: folder of the artifacts, shared by audits.
        tracking: where runs are recorded; None: nowhere.
        report: which images of people the report shows.
        gallery: who else stands in the galleries.
    """

    faces: FaceSource
    splits: SplitConfig
    anonymizers: dict[str, Anonymizer]
    attackers: dict[str, Attacker]
    engine: EngineConfig
    audit: AuditSettings
    output: str
    cache_dir: str
    tracking: TrackingConfig | None = None
    report: ReportSettings = dataclasses.field(default_factory=ReportSettings)
    gallery: GallerySettings = dataclasses.field(default_factory=GallerySettings)

    def __post_init__(self) -> None:
        _check_names("anonymizers", {key: item.name for key, item in self.anonymizers.items()})
        _check_names("attackers", {key: item.name for key, item in self.attackers.items()})
        for key, attacker in self.attackers.items():
            try:
                attacker.combines([other for other in self.attackers if other != key])
            except ValueError as error:
                raise ValueError(f"attackers.{key}.{error}") from error
        crop = self.faces.face_crop
        if crop is not None:
            attackers = {key: with_face_crop(item, crop) for key, item in self.attackers.items()}
            object.__setattr__(self, "attackers", attackers)
        for key, other in self.further_sources.items():
            if other.name == self.faces.name:
                raise ValueError(
                    f"{key}.name: {other.name!r} is the name of the audited source; choose another "
                    "one"
                )
        _check_release(self.audit.release, [item.name for item in self.anonymizers.values()])

    @property
    def further_sources(self) -> dict[str, FaceSource]:
        """Sources that are given beside the audited one, by key."""
        sources = {
            "gallery.faces": self.gallery.faces,
            "gallery.references": self.gallery.references,
            "audit.training_faces": self.audit.training_faces,
        }
        return {key: source for key, source in sources.items() if source is not None}


def _check_names(kind: str, names: Mapping[str, str]) -> None:
    """Every member needs a name of its own: tables, stages and runs are told apart by it."""
    if not names:
        raise ValueError(
            f"{kind}: choose at least one, for example {kind}=[...]; see cldmray list {kind}"
        )
    owners: dict[str, str] = {}
    for key, name in names.items():
        try:
            check_label(name)  # whatever the class: names become folders of cache_dir
        except ValueError as error:
            raise ValueError(f"{kind}.{key}.{error}") from error
        if name == ORIGINAL:
            raise ValueError(
                f"{kind}.{key}: the name {name!r} means the original images; set a label"
            )
        if owners.setdefault(name, key) != key:
            raise ValueError(
                f"{kind}.{key}: has the same name {name!r} as {kind}.{owners[name]}; set its label"
            )


def _check_release(release: list[str] | None, names: list[str]) -> None:
    if release is None:
        return
    if not release:
        raise ValueError(
            "audit.release: name at least one setting; null stands for all but controls"
        )
    for name in release:
        if name not in names:
            raise ValueError(
                f"audit.release: no setting is called {name!r}; there are {', '.join(names)}"
            )


def build_audit(config: DictConfig | Mapping[str, Any]) -> AuditConfig:
    """Check and build a whole audit.

    Raises:
        ConfigError: a key is unknown, missing or has a wrong value; the message names it.
    """
    data: dict[str, Any] = to_container(config)
    nobody: dict[str, Any] = {"anonymizers": {}, "attackers": {}}  # as Hydra leaves out []
    audit: AuditConfig = build(nobody | data, AuditConfig, "")
    return audit


def refuse_dry_run(audit: AuditConfig) -> None:
    """Raise ConfigError where a job that cannot be planned is asked to."""
    if audit.audit.dry_run:
        raise ConfigError("audit.dry_run: only an audit can be planned: cldmray plan")


def refuse_audit_only(audit: AuditConfig) -> None:
    """Refuse in a study what only ``cldmray audit`` heeds.

    Raises:
        ConfigError: such a setting is given; the message begins with its key.
    """
    refuse_dry_run(audit)
    given = {
        "gallery.distractors": audit.gallery.distractors != "none",
        "gallery.faces": audit.gallery.faces is not None,
        "gallery.references": audit.gallery.references is not None,
        "audit.fail_on": bool(audit.audit.policy.rules),
    }
    for key, is_given in given.items():
        if is_given:
            raise ConfigError(f"{key}: only cldmray audit takes it; leave it out here")
