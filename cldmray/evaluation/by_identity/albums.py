"""Person level: the attacker identifies an identity by all its anonymized images at once."""

import numpy as np

from cldmray.evaluation.identification import AttackResult
from cldmray.evaluation.measures import RANKS, Measured
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.gallery.chance import measured_places
from cldmray.metrics.confidence import bootstrap_mean
from cldmray.metrics.identification import expected_rank, success_at_rank
from cldmray.metrics.rates import rate_intervals


def album_measures(albums: AttackResult, settings: EvaluationSettings) -> list[Measured]:
    """``rank_1`` and the other rates, and ``mean_rank``, where an identity is one trial.

    Args:
        albums: see :attr:`cldmray.evaluation.identification.AttackResult.albums`.
    """
    ranks = albums.ranks
    rates = rate_intervals(
        np.stack([success_at_rank(ranks.n_higher, ranks.n_tied, k) for k in RANKS], 1),
        ranks.identities,
        samples=ranks.sample_ids,
        confidence_level=settings.confidence_level,
    )
    size = ranks.gallery_size
    places = measured_places(albums.scores) if albums.scores else np.full(size, 1 / size)
    measured = [
        Measured(f"rank_{k}", rate, min(1.0, float(places[:k].sum())))
        for k, rate in zip(RANKS, rates, strict=True)
    ]
    mean = bootstrap_mean(
        expected_rank(ranks.n_higher, ranks.n_tied), ranks.identities, **settings.bootstrap
    )
    return [*measured, Measured("mean_rank", mean, float(places @ np.arange(1, size + 1)))]
