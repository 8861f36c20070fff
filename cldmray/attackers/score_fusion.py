"""The attacker who adds up what the other attackers found, by a rule fitted on its own people.

Every attacker's scores of one probe are first brought to mean 0 and standard deviation 1 over the
candidates, so that attackers of any scale can be added. The weights are those of a conditional logit:
the chance that candidate j is the person of a probe is the softmax over j of the weighted sum. They
are fitted on attacker-validation people, whom no encoder was trained on and who are not evaluated.

Sources: A. Jain, K. Nandakumar and A. Ross, "Score normalization in multimodal biometric systems",
Pattern Recognition 38(12), 2005; D. McFadden, "Conditional logit analysis of qualitative choice
behavior", 1974.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import logsumexp

from cldmray.attackers.base import Attacker

Floats = npt.NDArray[np.float64]
LEAST = 1e-6
"""Weight below which an attacker tells nothing."""


@dataclass(frozen=True)
class ScoreFusion(Attacker):
    """Adds the scores of the audit's other attackers.

    Attributes:
        of: keys of the attackers that are fused; empty takes all others of the audit.
        penalty: weight of the squared weights in the fit, >= 0; it keeps the rule finite where the
            validation people are told apart without error.
        people: validation people, at least, for the fit; with fewer there is no fusion, which a
            note of the report says.
    """

    of: tuple[str, ...] = ()
    penalty: float = 0.01
    min_identities: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "of", tuple(self.of))
        if not self.penalty >= 0:
            raise ValueError(f"penalty: must not be negative, got {self.penalty}")
        if self.min_identities < 2:
            raise ValueError(f"min_identities: must be at least 2, got {self.min_identities}")

    @property
    def name(self) -> str:
        return self.label or "score_fusion"

    @property
    def per_anonymizer(self) -> bool:
        return True

    @property
    def recognizes_clean_faces(self) -> bool:
        return False

    def parts(self, keys: list[str]) -> list[str]:
        """Keys of the attackers to fuse, out of those of the audit.

        Raises:
            ValueError: it names one that is not there, or there are fewer than two.
        """
        unknown = [key for key in self.of if key not in keys]
        if unknown:
            raise ValueError(f"of: {unknown[0]!r} is no other attack of this audit")
        chosen = [key for key in keys if not self.of or key in self.of]
        if len(chosen) < 2:
            raise ValueError("of: a fusion needs two other attacks of this audit at least")
        return chosen


def fit_weights(scores: Floats, own: npt.NDArray[np.integer], penalty: float) -> Floats:
    """Weights of R attackers, >= 0, that make the true candidates most likely.

    Args:
        scores: normalized, of P probes against N candidates by R attackers, shape (P, N, R).
        own: column of each probe's true identity, shape (P,).
        penalty: see :class:`Fusion`.

    Returns:
        Shape (R,). All zero where no attacker tells anything.
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
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return np.where(found.x > LEAST, found.x, 0.0)
