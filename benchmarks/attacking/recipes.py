"""Rank-1 rate against CPU seconds of training, for each recipe of an attacker."""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from attacking.people import People
from cldmray.arrays import Pictures
from cldmray.attackers.base import TrainedRung
from cldmray.attackers.contrastive import Adaptive, ClearTrained
from cldmray.attackers.distilled import TaughtRung, TeacherGuided
from cldmray.attackers.nn.encoder import EncoderConfig, embed
from cldmray.attackers.nn.objectives import objective
from cldmray.attackers.nn.training import (
    TrainingConfig,
    optimizer_of,
    starting_encoder,
    training_steps,
)
from cldmray.gallery.ranking import Embedded, rank_probes
from cldmray.metrics.confidence import Interval, bootstrap_identities
from cldmray.metrics.identification import success_at_rank
from cldmray.recognizers.base import Embeddings

CPU = torch.device("cpu")


class Point(NamedTuple):
    """One point of a recipe's curve.

    Attributes:
        step: optimiser steps taken.
        own: CPU seconds of these steps: drawing batches, forward, backward, AdamW.
        total: ``own`` and what had to be done before: the training that the recipe starts from,
            or the teacher's embeddings of the attacker's photographs.
        rank_1: rate on the evaluated people with its 95 % interval; Full-Ref, source excluded.
    """

    step: int
    own: float
    total: float
    rank_1: Interval


class Recipe(NamedTuple):
    """A recipe, its curve and the weights that it ended with."""

    name: str
    curve: list[Point]
    weights: Mapping[str, Tensor]


def recipes(
    shape: EncoderConfig, training: TrainingConfig, teacher: bool
) -> dict[str, TrainedRung]:
    """The rungs that are compared, each after the one it starts from."""
    rungs: dict[str, TrainedRung] = {
        "clear_trained": ClearTrained(shape, training),
        "adaptive, afresh": Adaptive(shape, training),
        "adaptive, warm start": Adaptive(shape, training, start_from="clear_trained"),
    }
    if teacher:
        rungs["adaptive, teacher"] = TeacherGuided(shape, training)
    return rungs


def follow(
    name: str,
    rung: TrainedRung,
    attacker: People,
    evaluated: People,
    points: Sequence[int],
    before: Recipe | None,
) -> Recipe:
    """Train a rung in this process and measure it at some numbers of steps.

    Only the steps are timed: neither the pictures, which all recipes share, nor the measurements.
    Points before the last are taken on the way, where the learning rate has not yet fallen; a
    training planned for as many steps ends higher.

    Args:
        points: numbers of steps; the last is ``rung.training.steps``.
        before: the recipe that this one starts from.
    """
    spent, taught, gallery = 0.0, None, None
    if isinstance(rung, TaughtRung):
        rung.check()
        started = time.process_time()
        taught = rung.teacher.embed(attacker.photos)
        spent = time.process_time() - started
        gallery = rung.teacher.embed(evaluated.photos)
    elif before is not None:
        spent = before.curve[-1].total
    goal = objective(attacker.pairs(rung, taught), rung.training, 1)
    own, curve = 0.0, []
    started = time.process_time()
    encoder = starting_encoder(rung.encoder, rung.training, before.weights if before else None)
    optimizer = optimizer_of(encoder, rung.training)
    chunk = rung.training.cache_chunk
    steps = training_steps(goal, encoder, optimizer, CPU, cache_chunk=chunk)
    for step, _ in enumerate(steps, 1):
        if step in points:
            own += time.process_time() - started
            encoder.eval()
            rate = named(encoder, rung, evaluated, gallery)
            encoder.train()
            curve.append(Point(step, own, spent + own, rate))
            started = time.process_time()
    return Recipe(name, curve, encoder.state_dict())


def named(
    encoder: nn.Module, rung: TrainedRung, people: People, gallery: Embeddings | None
) -> Interval:
    """Rank-1 rate of the anonymized pictures: Full-Ref, source excluded.

    Args:
        gallery: the teacher's embeddings of the photographs; None embeds them with the encoder.
    """
    probes: Pictures = people.redrawn
    if rung.probe_condition is not None:
        probes = rung.probe_condition(probes)
    if gallery is None:
        gallery = embed(encoder, people.photos)
    ids, identities = people.sample_ids, people.identities
    found = rank_probes(
        Embedded(ids, identities, embed(encoder, probes)),
        Embedded(ids, identities, gallery),
        "full_ref",
        "source_excluded",
    )
    hits = success_at_rank(found.better, found.ties, 1)
    return bootstrap_identities(hits, found.identities)


def spaced(steps: int, count: int) -> list[int]:
    """About ``count`` numbers of steps up to ``steps``, each about twice the one before."""
    return sorted({int(one) for one in np.maximum(1, steps // 2 ** np.arange(count))})
