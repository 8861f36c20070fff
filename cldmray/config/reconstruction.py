"""The settings of inversion attacks: reconstruction models, and what is searched."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from omegaconf import DictConfig
from pydantic import NonNegativeInt

from cldmray.attackers.pretrained import Pretrained
from cldmray.attackers.reconstruction.attacker import ReconstructionAttacker
from cldmray.attackers.reconstruction.base import ReconstructionModel
from cldmray.attackers.reconstruction.controls import MeanFace, NearestTrainingFace
from cldmray.config.audit import AuditConfig, build_audit, refuse_audit_only
from cldmray.config.instantiate import build, settings_of, to_container
from cldmray.engine.tuning import BUDGET, SearchConfig, TrialSpec, check_tune
from cldmray.errors import CldmrayError, ConfigError
from cldmray.recognizers.base import Recognizer, Square, with_face_crop
from cldmray.recognizers.dlib import DlibResNet
from cldmray.recognizers.sface import SFace
from cldmray.results.reconstruction import SHUFFLED
from cldmray.settings import Count, checked_dataclass

RAW = "raw"
"""Name of the attacker whose held-out recognizer looks at the anonymized images as they are."""


@checked_dataclass
class ReconstructionSettings:
    """Which reconstruction models are tried, and who evaluates the reconstructions.

    Attributes:
        models: the reconstruction models, by key.
        held_out_recognizer: identifies the reconstructions; no model learns with it.
        validation_recognizer: the attacker's own recognizer, for learning curves and the search.
        budget: queries that each model may learn from; None: all images of attacker identities.
        search: of better settings, before they are evaluated.
        n_example_images: identities shown in the grid of reconstructions, >= 0.
    """

    models: dict[str, ReconstructionModel]
    held_out_recognizer: Recognizer = field(default_factory=DlibResNet)
    validation_recognizer: Recognizer = field(default_factory=SFace)
    budget: Count | None = None
    search: SearchConfig = field(default_factory=SearchConfig)
    n_example_images: NonNegativeInt = 6

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("models: choose at least one")
        for key, reconstructor in self.models.items():
            if reconstructor.is_control:
                raise ValueError(f"models.{key}: is a control; those are run in any case")
        if self.search.trials and self.search.model not in self.models:
            raise ValueError(
                f"search.model: {self.search.model!r} is none of models, {', '.join(self.models)}"
            )

    @property
    def searched(self) -> ReconstructionModel:
        """The reconstruction model whose settings are varied."""
        return self.models[self.search.model]


@dataclass(frozen=True)
class ReconstructionConfig:
    """A whole study of inversion attacks, checked.

    Attributes:
        audit: its attackers are those of :meth:`with_attackers`.
        reconstruction: what is tried.
    """

    audit: AuditConfig
    reconstruction: ReconstructionSettings

    def attacker(
        self, reconstructor: ReconstructionModel, budget: int | None
    ) -> ReconstructionAttacker:
        """An attacker with one reconstruction model."""
        settings = self.reconstruction
        return ReconstructionAttacker(
            reconstructor,
            settings.held_out_recognizer,
            settings.validation_recognizer,
            budget,
            label=reconstructor.name,
        )

    def attempts(self, best: TrialSpec | None) -> list[TrialSpec]:
        """The reconstruction models without their controls.

        Args:
            best: result of a search; None: nothing was searched.
        """
        settings = self.reconstruction
        tried = [TrialSpec(model, settings.budget) for model in settings.models.values()]
        return tried if best is None else [*tried, best]

    def raw(self) -> AuditConfig:
        """The audit with one attacker, whose held-out recognizer looks at the anonymized images."""
        return replace(
            self.audit,
            attackers={RAW: Pretrained(self.reconstruction.held_out_recognizer, label=RAW)},
        )

    def with_attackers(self, best: TrialSpec | None) -> AuditConfig:
        """The audit with all reconstruction models and their controls as attackers.

        Args:
            best: result of a search; None: nothing was searched.
        """
        settings = self.reconstruction
        attackers: dict[str, Any] = {}
        controls = [TrialSpec(model, settings.budget) for model in (MEAN, NEAREST)]
        for reconstructor, budget in [*self.attempts(best), *controls]:
            attackers[reconstructor.name] = self.attacker(reconstructor, budget)
            if reconstructor.max_steps:
                shuffled = shuffled_twin(reconstructor)
                attackers[shuffled.name] = self.attacker(shuffled, budget)
        return replace(self.audit, attackers=attackers)

    @property
    def make(self) -> Any:
        """What a trial tries, for workers; see :func:`make_candidate`."""
        settings = self.reconstruction
        return partial(make_candidate, settings.searched, settings.budget, settings.search)

    def check(self) -> None:
        """Find out before any work starts whether everything is there.

        Raises:
            CldmrayError: it is not; the message begins with the key.
        """
        settings = self.reconstruction
        parts: dict[str, Any] = {f"models.{k}": v for k, v in settings.models.items()}
        parts |= {
            "held_out_recognizer": settings.held_out_recognizer,
            "validation_recognizer": settings.validation_recognizer,
        }
        for key, part in parts.items():
            try:
                part.check()
            except CldmrayError as error:
                raise type(error)(f"reconstruction.{key}: {error}") from error
        for key, reconstructor in settings.models.items():
            try:
                reconstructor.check_held_out_recognizer(settings.held_out_recognizer)
            except CldmrayError as error:
                raise type(error)(f"reconstruction.models.{key}: {error}") from error
        if settings.search.trials:
            check_tune()


MEAN, NEAREST = MeanFace(), NearestTrainingFace()


def shuffled_twin(reconstructor: ReconstructionModel) -> ReconstructionModel:
    """The label-permutation control: the same reconstruction model, learnt from shuffled pairs."""
    return replace(reconstructor, shuffled=True, label=f"{reconstructor.name}{SHUFFLED}")


def controls_of(reconstructor: ReconstructionModel) -> list[str]:
    """Names of the controls that a reconstruction model must beat."""
    own = [shuffled_twin(reconstructor).name] if reconstructor.max_steps else []
    return [MEAN.name, NEAREST.name, *own]


def make_candidate(
    reconstructor: ReconstructionModel,
    budget: int | None,
    search: SearchConfig,
    drawn: Mapping[str, Any],
) -> TrialSpec:
    """The reconstruction model with the values that were drawn, and its budget.

    Args:
        drawn: of each dimension, as Ray Tune hands it out.

    Raises:
        ConfigError: a value does not fit; the message names the dimension.
    """
    values = {key: search.space[key].value(value) for key, value in drawn.items()}
    return candidate_of(reconstructor, budget, values)


def candidate_of(
    reconstructor: ReconstructionModel, budget: int | None, values: Mapping[str, Any]
) -> TrialSpec:
    """The reconstruction model with other values of some dotted settings, and of ``budget``.

    Raises:
        ConfigError: there is no such setting, or the value does not fit; the message names it.
    """
    node = settings_of(reconstructor)
    for key, value in values.items():
        if key == BUDGET:
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"{BUDGET}: must be null or at least 1, got {value!r}")
            budget = value
            continue
        *groups, last = key.split(".")
        place = node
        for group in groups:
            place = place.get(group)
            if not isinstance(place, dict):
                raise ConfigError(f"{key}: {reconstructor.name} has no settings {group}")
        place[last] = value
    made: ReconstructionModel = build(node, ReconstructionModel, "")
    return TrialSpec(made, budget)


def check_space(settings: ReconstructionSettings) -> None:
    """Try the extremes of every dimension.

    Raises:
        ConfigError: one does not fit; the message names the dimension.
    """
    for key, dimension in settings.search.space.items():
        for value in dimension.extremes:
            try:
                candidate_of(settings.searched, settings.budget, {key: value})
            except ConfigError as error:
                raise ConfigError(f"reconstruction.search.space.{key}: {error}") from error


def _with_face_crop(settings: ReconstructionSettings, crop: Square) -> ReconstructionSettings:
    """Settings whose recognizers look where an audit's attackers do, also in a search's trials."""
    models = {key: with_face_crop(model, crop) for key, model in settings.models.items()}
    return replace(with_face_crop(settings, crop), models=models)


def build_reconstruction(composed: DictConfig | Mapping[str, Any]) -> ReconstructionConfig:
    """Check and build a whole study of inversion attacks.

    Raises:
        ConfigError: a key is unknown, missing, of audits alone or has a wrong value; the message
            names it.
    """
    data = to_container(composed)
    settings: ReconstructionSettings = build(
        data.pop("reconstruction", {}), ReconstructionSettings, "reconstruction"
    )
    if data.get("attackers"):
        raise ConfigError(
            "attackers: the reconstruction models are the attackers of this study; leave it out, "
            "and name them by reconstruction.models"
        )
    data["attackers"] = {RAW: settings_of(Pretrained(settings.held_out_recognizer, label=RAW))}
    audit = build_audit(data)
    refuse_audit_only(audit)
    if audit.audit.n_training_seeds > 1:
        raise ConfigError(
            "audit.n_training_seeds: must be 1 here; give reconstruction.models another one with "
            f"another training.seed and label instead, got {audit.audit.n_training_seeds}"
        )
    if audit.faces.face_crop is not None:
        settings = _with_face_crop(settings, audit.faces.face_crop)
    config = ReconstructionConfig(audit, settings)
    if settings.search.trials:
        check_space(settings)
    try:
        config.with_attackers(None)
    except ValueError as error:
        raise ConfigError(f"reconstruction.{error}") from error
    return config
