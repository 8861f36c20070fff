"""Attackers whose contrastive encoder is trained on pairs (query, photograph) of attacker people."""

from dataclasses import dataclass

from cldmray.attackers.base import Query, ThroughCondition, TrainedRung


@dataclass(frozen=True)
class ClearTrained(TrainedRung):
    """Knows photographs of other people only: pairs of two photographs of one person."""

    @property
    def name(self) -> str:
        return self.label or "clear_trained"

    @property
    def query(self) -> Query:
        return "photo"


@dataclass(frozen=True)
class EdgeProxy(ThroughCondition, TrainedRung):
    """The paper's black-box attacker: knows which condition is used, never the model's output.

    Pairs of a photograph's own condition map and a photograph; probes are read through the same
    extractor.
    """

    @property
    def name(self) -> str:
        return self.label or "edge_proxy"

    @property
    def query(self) -> Query:
        return "condition"


@dataclass(frozen=True)
class Adaptive(TrainedRung):
    """The paper's main attacker: can query the anonymizer with photographs of other people."""

    @property
    def name(self) -> str:
        return self.label or "adaptive"

    @property
    def query(self) -> Query:
        return "anonymized"
