"""The settings of an evaluation: which comparisons count, and how uncertain the rates are."""

from dataclasses import field
from typing import Annotated, Literal, TypedDict, TypeVar, get_args

from pydantic import AfterValidator, Field, NonNegativeInt

from cldmray.evaluation.decision import DecisionPolicy
from cldmray.evaluation.gate import parse_rules
from cldmray.gallery.protocols import Gallery, Protocol
from cldmray.settings import checked_dataclass

UtilityMeasure = Literal[
    "ssim", "edge_f1", "face_detection_rate", "pose_consistency", "attributes", "frechet"
]

T = TypeVar("T")


def _distinct(names: list[T]) -> list[T]:
    if len(set(names)) < len(names):
        raise ValueError("name none twice")
    return names


Distinct = Annotated[list[T], AfterValidator(_distinct)]
"""A list that names nothing twice."""


class BootstrapOptions(TypedDict):
    """The keyword arguments of every interval of :mod:`cldmray.metrics`."""

    confidence_level: float
    n_bootstrap: int
    seed: int


@checked_dataclass
class EvaluationSettings:
    """How scores become rates, intervals and a decision.

    Attributes:
        seed: of all that is random in an audit, the anonymized images and the bootstrap, >= 0;
            another seed makes new images.
        protocols: how many references each identity has: ``full_ref``, ``few_ref``, ``single_ref``.
        galleries: whether the source image is enrolled, or anonymized images alone are.
        confidence_level: of the intervals in tables, in (0, 1). The verdict's intervals are
            widened so that all attacks of one kind on one anonymizer hold at this level together.
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

    seed: NonNegativeInt = 0
    protocols: Annotated[Distinct[Protocol], Field(min_length=1)] = field(
        default_factory=lambda: ["full_ref", "few_ref", "single_ref"]
    )
    galleries: Annotated[Distinct[Gallery], Field(min_length=1)] = field(
        default_factory=lambda: ["source_excluded", "source_included", "anonymized_only"]
    )
    confidence_level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    n_bootstrap: Annotated[int, Field(ge=100)] = 5000
    utility: Distinct[UtilityMeasure] = field(
        default_factory=lambda: list(get_args(UtilityMeasure))
    )
    target_k: Annotated[int, Field(ge=2)] = 20
    release: Distinct[str] | None = None
    fail_on: str | list[str] | None = None

    def __post_init__(self) -> None:
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
