"""Score fusion: the weighted sum of the other attackers' scores, fitted on validation identities.

Each attacker's scores of a probe are first brought to mean 0 and standard deviation 1 over the
gallery's identities, so that scores of any scale can be added. The weights are those of a
conditional logit: the probability that identity j is the probe's is the softmax over j of the
weighted sum. They are fitted on attacker-validation identities, which no encoder was trained on and
which are not evaluated.

Sources: A. Jain, K. Nandakumar and A. Ross, "Score normalization in multimodal biometric systems",
Pattern Recognition 38(12), 2005; D. McFadden, "Conditional logit analysis of qualitative choice
behavior", 1974.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeFloat
from scipy.optimize import minimize
from scipy.special import logsumexp

from cldmray.anonymizers.base import Anonymizer
from cldmray.attackers.base import Attacker
from cldmray.errors import BadInputError
from cldmray.gallery.score_fusion import WeightedScores, stack_scores
from cldmray.gallery.scores import Scores
from cldmray.settings import checked_dataclass

Floats = npt.NDArray[np.float64]
LEAST = 1e-6
"""Weight below which an attacker contributes nothing."""


@checked_dataclass
class ScoreFusion(Attacker):
    """Adds the scores of the audit's other attackers.

    Attributes:
        of: keys of the attackers to combine; empty: all others of the audit.
        penalty: weight of the squared weights in the fit, >= 0. It keeps the rule finite where all
            validation probes are identified.
        min_identities: validation identities that the fit needs at least. With fewer there is no
            fusion, and a note of the report says so.
    """

    of: tuple[str, ...] = ()
    penalty: NonNegativeFloat = 0.01
    min_identities: Annotated[int, Field(ge=2)] = 10

    @property
    def learns_from_anonymized(self) -> bool:
        return True

    def can_attack(self, anonymizer: Anonymizer) -> bool:
        """Always: its rule may be fitted on images that are left as they are."""
        return True

    @property
    def recognizes_clean_faces(self) -> bool:
        return False

    def combines(self, keys: Sequence[str]) -> Sequence[str]:
        """Keys of the attackers to combine, out of the others of the audit.

        Raises:
            ValueError: it names one that is not there, or there are fewer than two.
        """
        unknown = [key for key in self.of if key not in keys]
        if unknown:
            raise ValueError(f"of: {unknown[0]!r} is no other attacker of this audit")
        combined = [key for key in keys if not self.of or key in self.of]
        if len(combined) < 2:
            raise ValueError("of: a fusion needs at least two other attackers of this audit")
        return combined

    def combine(
        self, scores: Sequence[Scores], validation: Sequence[Scores]
    ) -> tuple[Scores, Floats]:
        """See :meth:`Attacker.combine`; the weights have one number an attacker, >= 0."""
        identities = len(np.unique(validation[0].mated_columns))
        if identities < self.min_identities:
            raise BadInputError(
                f"{identities} validation identities can be fitted on, {self.name}.min_identities "
                f"asks for {self.min_identities}"
            )
        weights = fit_weights(stack_scores(validation), validation[0].mated_columns, self.penalty)
        if not weights.any():
            raise BadInputError("no attacker identifies validation identities better than chance")
        return WeightedScores(scores, weights), weights


def fit_weights(scores: Floats, own: npt.NDArray[np.integer], penalty: float) -> Floats:
    """Weights of R attackers, >= 0, that make the true identities most likely.

    Args:
        scores: normalized, of P probes against N identities by R attackers, shape (P, N, R).
        own: column of each probe's true identity, shape (P,).
        penalty: see :class:`ScoreFusion`.

    Returns:
        Shape (R,). All zero where no attacker identifies anybody better than chance.
    """
    rows = np.arange(len(own))
    truth = scores[rows, own].mean(axis=0)

    def loss(weights: Floats) -> tuple[float, Floats]:
        total = scores @ weights
        log_sum = logsumexp(total, axis=1)
        chances = np.exp(total - log_sum[:, None])
        expected = np.einsum("pn,pnr->r", chances, scores) / len(own)
        value = log_sum.mean() - truth @ weights + penalty * weights @ weights
        return float(value), expected - truth + 2 * penalty * weights

    start = np.full(scores.shape[2], 1 / scores.shape[2])
    bounds = [(0.0, None)] * scores.shape[2]
    fit = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return np.where(fit.x > LEAST, fit.x, 0.0)
