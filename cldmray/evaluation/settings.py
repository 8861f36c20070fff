"""The settings of an evaluation: which comparisons count, and how uncertain the rates are."""

from dataclasses import dataclass, field
from typing import Literal, TypedDict, get_args

from cldmray.evaluation.decision import DecisionPolicy
from cldmray.evaluation.gate import parse_rules
from cldmray.gallery.protocols import Gallery, Protocol

UtilityMeasure = Literal[
    "ssim", "edge_f1", "face_detection_rate", "pose_consistency", "attributes", "frechet"
]


class BootstrapOptions(TypedDict):
    """The keyword arguments of every interval of :mod:`cldmray.metrics`."""

    confidence_level: float
    n_bootstrap: int
    seed: int


@dataclass(frozen=True)
class EvaluationSettings:
    """How scores become rates, intervals and a decision.

    Attributes:
        seed: of the bootstrap, >= 0.
        protocols: how many references each identity has: ``full_ref``, ``few_ref``, ``single_ref``.
        galleries: whether the source image is enrolled, or anonymized images alone are.
        confidence_level: of the intervals in tables, in (0, 1). The verdict's intervals are
            widened so that all attacks on one anonymizer hold at this level together.
        n_bootstrap: resamples of the identities, >= 100.
        utility: how the usefulness of images is measured, see :mod:`cldmray.pipelines.utility`;
            may be empty. ``face_detection_rate`` and ``pose_consistency`` need the extra
            ``recognizer``.
        target_k: k of k-anonymity, at least 2, that a setting must support to be recommended.
        release: names of the settings that are meant to be released; None: all but controls.
        fail_on: what fails the job, as ``k<20 or leak`` (see :mod:`cldmray.evaluation.gate`);
            None: nothing.

    Raises:
        ValueError: a value is out of range; the message begins with the key.

    >>> EvaluationSettings(fail_on="k<5", target_k=5).policy.rules
    (ClaimRejected(k=5),)
    """

    seed: int = 0
    protocols: list[Protocol] = field(default_factory=lambda: ["full_ref", "few_ref", "single_ref"])
    galleries: list[Gallery] = field(
        default_factory=lambda: ["source_excluded", "source_included", "anonymized_only"]
    )
    confidence_level: float = 0.95
    n_bootstrap: int = 5000
    utility: list[UtilityMeasure] = field(default_factory=lambda: list(get_args(UtilityMeasure)))
    target_k: int = 20
    release: list[str] | None = None
    fail_on: str | list[str] | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed: must not be negative, got {self.seed}")
        for key in ("protocols", "galleries"):
            names = getattr(self, key)
            if not names or len(set(names)) < len(names):
                raise ValueError(f"{key}: name at least one, and none twice, got {names}")
        if len(set(self.utility)) < len(self.utility):
            raise ValueError(f"utility: name none twice, got {self.utility}")
        if not 0 < self.confidence_level < 1:
            raise ValueError(f"confidence_level: must be in (0, 1), got {self.confidence_level}")
        if self.n_bootstrap < 100:
            raise ValueError(f"n_bootstrap: must be at least 100, got {self.n_bootstrap}")
        if self.target_k < 2:
            raise ValueError(f"target_k: must be at least 2, got {self.target_k}")
        parse_rules(self.fail_on)

    @property
    def bootstrap(self) -> BootstrapOptions:
        """Options of the confidence intervals."""
        return {
            "confidence_level": self.confidence_level,
            "n_bootstrap": self.n_bootstrap,
            "seed": self.seed,
        }

    @property
    def policy(self) -> DecisionPolicy:
        """What the verdict has to answer."""
        release = None if self.release is None else tuple(self.release)
        return DecisionPolicy(self.target_k, parse_rules(self.fail_on), release)
