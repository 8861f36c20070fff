"""Rank-1 rate against CPU seconds of training, for each recipe of an attacker."""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from attacking.identities import Identities
from cldmray.arrays import Images, Interval
from cldmray.attackers.contrastive import AdaptiveContrastive, CleanTrained
from cldmray.attackers.distilled import AdaptiveDistilled, DistilledAttacker
from cldmray.attackers.encoder_attacker import EncoderAttacker
from cldmray.attackers.nn.encoder import EncoderConfig, embed
from cldmray.attackers.nn.encoder_training import EncoderTrainable
from cldmray.attackers.nn.training import TrainingConfig, TrainingLoop
from cldmray.gallery.ranking import EmbeddingSet, rank_probes
from cldmray.metrics.identification import success_at_rank
from cldmray.metrics.rates import rate_interval
from cldmray.recognizers.base import Embeddings


class Point(NamedTuple):
    """One point of a recipe's curve.

    Attributes:
        step: optimiser steps taken.
        own: CPU seconds of these steps: drawing batches, forward, backward, AdamW.
        total: ``own`` and what had to be done before: the training that the recipe starts from,
            or the teacher's embeddings of the attacker's images.
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


def recipes_of(
    shape: EncoderConfig, training: TrainingConfig, teacher: bool
) -> dict[str, EncoderAttacker]:
    """The attackers that are compared, each after the one it starts from."""
    clean_trained = CleanTrained(shape, training)
    attackers: dict[str, EncoderAttacker] = {
        "clean_trained": clean_trained,
        "adaptive_contrastive, afresh": AdaptiveContrastive(shape, training),
        "adaptive_contrastive, warm start": AdaptiveContrastive(
            shape, training, init_from=clean_trained
        ),
    }
    if teacher:
        attackers["adaptive_contrastive, teacher"] = AdaptiveDistilled(shape, training)
    return attackers


def follow(
    name: str,
    attacker: EncoderAttacker,
    attacker_name: Identities,
    evaluated: Identities,
    points: Sequence[int],
    before: Recipe | None,
) -> Recipe:
    """Train an attacker in this process and measure it at some numbers of steps.

    Only the steps are timed: neither the images, which all recipes share, nor the measurements.
    Points before the last are taken on the way, where the learning rate has not yet fallen; a
    training planned for as many steps ends higher.

    Args:
        points: numbers of steps; the last is ``attacker.training.steps``.
        before: the recipe that this one starts from.
    """
    spent, teacher_embeddings, gallery = 0.0, None, None
    if isinstance(attacker, DistilledAttacker):
        attacker.check()
        started = time.process_time()
        teacher_embeddings = attacker.teacher.embed(attacker_name.originals)
        spent = time.process_time() - started
        gallery = attacker.teacher.embed(evaluated.originals)
    elif before is not None:
        spent = before.curve[-1].total
    pairs = attacker_name.pairs(attacker, teacher_embeddings)
    own, curve = 0.0, []
    started = time.process_time()
    trainable = EncoderTrainable(
        attacker.name,
        attacker.encoder,
        attacker.training,
        pairs,
        init_from=before.weights if before else None,
    )
    loop = TrainingLoop(trainable)
    encoder = trainable.network
    for step, _ in enumerate(loop.steps(), 1):
        if step in points:
            own += time.process_time() - started
            encoder.eval()
            rate = named(encoder, attacker, evaluated, gallery)
            encoder.train()
            curve.append(Point(step, own, spent + own, rate))
            started = time.process_time()
    return Recipe(name, curve, encoder.state_dict())


def named(
    encoder: nn.Module,
    attacker: EncoderAttacker,
    unique_identities: Identities,
    gallery: Embeddings | None,
) -> Interval:
    """Rank-1 rate of the anonymized images: Full-Ref, source excluded.

    Args:
        gallery: the teacher's embeddings of the images; None embeds them with the encoder.
    """
    probes: Images = unique_identities.anonymized
    if attacker.probe_condition is not None:
        probes = attacker.probe_condition(probes)
    if gallery is None:
        gallery = embed(encoder, unique_identities.originals)
    ids, identities = unique_identities.sample_ids, unique_identities.identities
    ranks = rank_probes(
        EmbeddingSet(ids, identities, embed(encoder, probes)),
        EmbeddingSet(ids, identities, gallery),
        "full_ref",
        "source_excluded",
    )
    hits = success_at_rank(ranks.n_higher, ranks.n_tied, 1)
    return rate_interval(hits, ranks.identities)


def spaced(max_steps: int, count: int) -> list[int]:
    """About ``count`` numbers of steps up to ``steps``, each about twice the one before."""
    return sorted({int(step) for step in np.maximum(1, max_steps // 2 ** np.arange(count))})
