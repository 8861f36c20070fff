"""Attacks of a fusion: its weights, fitted on validation people, and what comes of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cldmray.attackers.fusion import Fusion, fit_weights
from cldmray.config import AuditSettings
from cldmray.engine.embed import ORIGINAL
from cldmray.errors import BadInputError
from cldmray.evaluation import Attack, Views
from cldmray.gallery.fused import FusedScores, stacked


class Part(NamedTuple):
    """What one rung saw of one anonymizer.

    Attributes:
        key, name: of the rung.
        evaluated, known: embeddings of evaluation and of validation people, one table a training.
    """

    key: str
    name: str
    evaluated: Sequence[pa.Table]
    known: Sequence[pa.Table]


def fuse(
    fusion: Fusion, parts: Sequence[Part], anonymizer: str, settings: AuditSettings
) -> tuple[list[Attack], dict[str, float], str]:
    """Attack one anonymizer in every protocol and gallery, each with weights of its own.

    Every training of a rung counts as a part of its own.

    Returns:
        The attacks; the weights by ``<protocol>/<gallery>/<rung>``, summed over trainings; and a
        note on what could not be fused, empty if all could.
    """
    found: list[Attack] = []
    weights: dict[str, float] = {}
    failed: list[str] = []
    owners = [part.name for part in parts for _ in part.evaluated]
    known = [table for part in parts for table in part.known]
    held_out: list[Views] = []
    evaluated = [
        Views.of(table, anonymizer, ORIGINAL) for part in parts for table in part.evaluated
    ]
    for protocol in settings.protocols:
        for gallery in settings.galleries:
            try:
                held_out = held_out or [Views.of(table, anonymizer, ORIGINAL) for table in known]
                learnt = [views.scores(protocol, gallery) for views in held_out]
                people = len(np.unique(learnt[0].own))
                if people < fusion.people:
                    raise BadInputError(
                        f"{people} validation people can be fitted on, {fusion.name}.people asks "
                        f"for {fusion.people}"
                    )
                rule = fit_weights(stacked(learnt), learnt[0].own, fusion.penalty)
                if not rule.any():
                    raise BadInputError("no attacker tells anything about validation people")
            except BadInputError as error:
                failed.append(f"{protocol}, {gallery}: {error}")
                continue
            for owner, weight in zip(owners, rule.tolist(), strict=True):
                key = f"{protocol}/{gallery}/{owner}"
                weights[key] = weights.get(key, 0.0) + weight
            seen = [views.scores(protocol, gallery) for views in evaluated]
            fused = FusedScores(seen, rule)
            found.append(Attack.of(anonymizer, fusion.name, protocol, gallery, fused))
    note = ""
    if failed:
        note = f"{fusion.name} was not run against {anonymizer} in {'; '.join(failed)}."
    return found, weights, note
