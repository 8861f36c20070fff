"""When an audit fails a pipeline: the rules of ``audit.fail_on``."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cldmray.errors import BadInputError
from cldmray.results.audit import AnonymizerRisk

BreachKind = Literal[
    "not_attacked",
    "gallery_too_small",
    "not_measured",
    "claim_rejected",
    "claim_not_supported",
    "rate_exceeded",
    "leak",
    "linked",
    "inconclusive",
]
"""Why a setting breaks a rule; see :class:`Breach`."""

ALLOWED = (
    "allowed are k<20 and k_supported<20 (whole numbers from 2), rank_1>0.05 and linkage>0.05 "
    "(rates from 0 to below 1), linkage, leak and inconclusive, joined by 'or' or commas or given "
    "as a list"
)
JOINED = re.compile(r"\s*,\s*|\s+or\s+")
CLAIM = re.compile(r"(k|k_supported)\s*<\s*([0-9]{1,9})")
RATE = re.compile(r"(rank_1|linkage)\s*>\s*([0-9]*\.?[0-9]+(?:[eE]-?[0-9]{1,3})?)")


@dataclass(frozen=True)
class Rule(ABC):
    """One thing that must not be so of a setting that is to be released."""

    @property
    def n_identities(self) -> int:
        """Evaluated identities without which the rule cannot be tested."""
        return 0

    @abstractmethod
    def __str__(self) -> str:
        """The rule as it is written in ``audit.fail_on``."""

    @abstractmethod
    def broken_by(self, risk: AnonymizerRisk) -> BreachKind | None:
        """Why a setting breaks the rule, which fails the audit; None where it does not."""


@dataclass(frozen=True)
class ClaimRejected(Rule):
    """``k<20``: an attack rejects the claim that the setting is 20-anonymous.

    Attributes:
        k: the claim, at least 2. A gallery of fewer identities can never support it.
    """

    k: int

    @property
    def n_identities(self) -> int:
        return self.k

    def __str__(self) -> str:
        return f"k<{self.k}"

    def broken_by(self, risk: AnonymizerRisk) -> BreachKind | None:
        if risk.gallery_size < self.k:
            return "gallery_too_small"
        return "claim_rejected" if risk.k_not_rejected < self.k else None


@dataclass(frozen=True)
class ClaimNotSupported(ClaimRejected):
    """``k_supported<20``: the data do not support that the setting is 20-anonymous.

    It fails for lack of data, too.
    """

    def __str__(self) -> str:
        return f"k_supported<{self.k}"

    def broken_by(self, risk: AnonymizerRisk) -> BreachKind | None:
        if risk.gallery_size < self.k:
            return "gallery_too_small"
        return "claim_not_supported" if risk.k_supported < self.k else None


@dataclass(frozen=True)
class Linked(Rule):
    """``linkage``: anonymized images of a person are linked significantly more than by chance.

    Attributes:
        rate: in [0, 1), that the lower bound must exceed (``linkage>0.05``); None: chance.
    """

    rate: float | None = None

    def __str__(self) -> str:
        return "linkage" if self.rate is None else f"linkage>{self.rate:.12g}"

    def broken_by(self, risk: AnonymizerRisk) -> BreachKind | None:
        if risk.linking_attacks is None:
            return "not_measured"
        best, tested = risk.linking_attacks
        linked = best.above_chance if self.rate is None else tested.low > self.rate
        return "linked" if linked else None


@dataclass(frozen=True)
class RateAbove(Rule):
    """``rank_1>0.05``: the lower confidence bound of an attack's rank-1 rate exceeds a rate.

    Attributes:
        rate: in [0, 1).
    """

    rate: float

    def __str__(self) -> str:
        return f"rank_1>{self.rate:.12g}"

    def broken_by(self, risk: AnonymizerRisk) -> BreachKind | None:
        return "rate_exceeded" if risk.tested_attack.low > self.rate else None


@dataclass(frozen=True)
class FindingRule(Rule):
    """``leak``: an attack beats chance, on single images or on all images of a person.

    ``inconclusive``: that, or the attackers are too weak.
    """

    finding: Literal["leak", "inconclusive"]

    def __str__(self) -> str:
        return self.finding

    def broken_by(self, risk: AnonymizerRisk) -> BreachKind | None:
        if risk.leaks:
            return "leak"
        return "inconclusive" if self.finding == risk.finding == "inconclusive" else None


class Breach(NamedTuple):
    """One setting that breaks one rule.

    Attributes:
        anonymizer: the setting's name.
        kind: why. ``not_attacked``: no attack could be run on it, which breaks any rule;
            ``gallery_too_small``: too few identities to test the claim; ``not_measured``: linkage
            was not measured; ``claim_rejected``, ``rate_exceeded``, ``leak``, ``linked``: an attack
            succeeds; ``claim_not_supported``: the data support less; ``inconclusive``: the
            attackers are too weak.
        rule: that is broken; None where the setting was not attacked.
        risk: the strongest attack on it; None where it was not attacked.
    """

    anonymizer: str
    kind: BreachKind
    rule: Rule | None = None
    risk: AnonymizerRisk | None = None


def parse_rules(given: str | Sequence[str] | None) -> tuple[Rule, ...]:
    """The rules of ``audit.fail_on``, none twice.

    Args:
        given: ``k<20 or leak``, ``k<20, leak`` or a list of such; None: no rules.

    Raises:
        ValueError: something is no rule; the message begins with the key ``fail_on``.

    >>> parse_rules("k<20 or leak")
    (ClaimRejected(k=20), FindingRule(finding='leak'))
    """
    if given is None:
        return ()
    texts = [given] if isinstance(given, str) else list(given)
    if not texts:
        raise ValueError(f"fail_on: an empty list; null stands for no rules, {ALLOWED}")
    parts = [part for text in texts for part in JOINED.split(text.strip())]
    return tuple(dict.fromkeys(_rule(part) for part in parts))


def _rule(text: str) -> Rule:
    if text in ("leak", "inconclusive"):
        return FindingRule("leak" if text == "leak" else "inconclusive")
    if text == "linkage":
        return Linked()
    if (claim := CLAIM.fullmatch(text)) and int(claim[2]) >= 2:
        return (ClaimRejected if claim[1] == "k" else ClaimNotSupported)(int(claim[2]))
    if (rate := RATE.fullmatch(text)) and float(rate[2]) < 1:
        return (RateAbove if rate[1] == "rank_1" else Linked)(float(rate[2]))
    raise ValueError(f"fail_on: {text!r} is no rule; {ALLOWED}")


def check_identities(rules: Iterable[Rule], n_identities: int) -> None:
    """Find out before the work whether every rule can be tested.

    Args:
        n_identities: to be evaluated.

    Raises:
        BadInputError: a claim of k-anonymity needs more; the message names the keys.
    """
    for rule in rules:
        if rule.n_identities > n_identities:
            raise BadInputError(
                f"audit.fail_on: {rule} cannot be tested on {n_identities} people; evaluate at "
                f"least {rule.n_identities} (splits.n_evaluation_identities, splits.evaluation), "
                "or choose a smaller k"
            )


def evaluate_gate(
    rules: Sequence[Rule], candidates: Iterable[str], risks: Mapping[str, AnonymizerRisk]
) -> list[Breach]:
    """The rules that settings to be released break; none: the gate is passed.

    A setting that nobody attacked fails whatever the rules are. Without rules nothing fails.

    Args:
        candidates: names of the settings.
        risks: the strongest attack on each setting that was attacked, by name.
    """
    breaches: list[Breach] = []
    for name in candidates if rules else ():
        if name not in risks:
            breaches.append(Breach(name, "not_attacked"))
            continue
        for rule in rules:
            if kind := rule.broken_by(risks[name]):
                breaches.append(Breach(name, kind, rule, risks[name]))
    return breaches
