"""Album attack: the attacker finds the images that show one person, and pools their scores.

What many images of a person say adds up, although each says little. Nobody has to tell the attacker
which they are: images of one person score alike. Where that is known, the level ``person`` of every
attacker says what it finds.

Source: to link first what stems from one source is the idea of N. Carlini et al., "Is Private
Learning Possible with Instance Encoding?", IEEE S&P 2021.
"""

from collections.abc import Sequence

import numpy as np

from cldmray.attackers.score_fusion import Floats, ScoreFusion
from cldmray.gallery.albums import LinkedScores
from cldmray.gallery.ranking import rank_scores
from cldmray.gallery.score_fusion import WeightedScores
from cldmray.gallery.scores import Scores
from cldmray.metrics.identification import success_at_rank
from cldmray.settings import checked_dataclass


@checked_dataclass
class Album(ScoreFusion):
    """Adds the scores of the audit's other attackers, links images, and pools what is linked.

    How many images are linked with one is what identifies most attacker-validation images.

    Attributes:
        n_links: numbers of linked images that are tried; 0 links none.

    >>> Album().name, Album().n_links
    ('album', (0, 1, 2, 4, 8))
    """

    n_links: tuple[int, ...] = (0, 1, 2, 4, 8)

    def __post_init__(self) -> None:
        if not self.n_links or min(self.n_links) < 0:
            raise ValueError("n_links: give at least one number, and none below 0")

    def combine(
        self, scores: Sequence[Scores], validation: Sequence[Scores]
    ) -> tuple[Scores, Floats]:
        """See :meth:`ScoreFusion.combine`."""
        fused, weights = super().combine(scores, validation)
        n_links = best_n_links(WeightedScores(validation, weights), self.n_links)
        return LinkedScores(fused, n_links), weights


def best_n_links(scores: Scores, choices: Sequence[int]) -> int:
    """The number of links that identifies most probes; the smallest of several.

    Args:
        scores: of the single probes of validation identities.
        choices: see :class:`Album`.
    """
    rates = {}
    for n_links in sorted(choices):
        ranks = rank_scores(LinkedScores(scores, n_links))
        rates[n_links] = float(np.mean(success_at_rank(ranks.n_higher, ranks.n_tied, 1)))
    return max(rates, key=lambda n_links: rates[n_links])
