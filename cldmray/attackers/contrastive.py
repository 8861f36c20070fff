"""Attackers whose contrastive encoder is trained on pairs (query, image) of attacker people."""

from dataclasses import dataclass

from cldmray.attackers.base import Query, ThroughCondition, TrainedAttacker


@dataclass(frozen=True)
class CleanTrained(TrainedAttacker):
    """Knows images of other people only: pairs of two images of one person."""

    @property
    def name(self) -> str:
        return self.label or "clean_trained"

    @property
    def query(self) -> Query:
        return "image"


@dataclass(frozen=True)
class ConditionOnly(ThroughCondition, TrainedAttacker):
    """The paper's black-box attacker: knows which condition is used, never the model's output.

    Pairs of an image's own condition map and an image; probes are read through the same
    extractor.
    """

    @property
    def name(self) -> str:
        return self.label or "condition_only"

    @property
    def query(self) -> Query:
        return "condition"


@dataclass(frozen=True)
class AdaptiveContrastive(TrainedAttacker):
    """The paper's main attacker: can query the anonymizer with images of other people."""

    @property
    def name(self) -> str:
        return self.label or "adaptive_contrastive"

    @property
    def query(self) -> Query:
        return "anonymized"
