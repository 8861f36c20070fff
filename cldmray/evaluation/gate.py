"""When an audit fails a pipeline: the rules of ``audit.fail_on``."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cldmray.errors import BadInputError
from cldmray.report.formatting import percent, protocol_name
from cldmray.results.audit import AnonymizerRisk
from cldmray.results.decision import Gate

ALLOWED = (
    "allowed are k<20 (whole numbers from 2), rank_1>0.05 (rates from 0 to below 1), leak and "
    "inconclusive, joined by 'or' or commas or given as a list"
)
JOINED = re.compile(r"\s*,\s*|\s+or\s+")
CLAIM = re.compile(r"k\s*<\s*([0-9]{1,9})")
RATE = re.compile(r"rank_1\s*>\s*([0-9]*\.?[0-9]+(?:[eE]-?[0-9]{1,3})?)")


@dataclass(frozen=True)
class Rule(ABC):
    """One thing that must not be found of a setting that is to be released."""

    @abstractmethod
    def __str__(self) -> str:
        """The rule as it is written in ``audit.fail_on``."""

    @abstractmethod
    def broken_by(self, risk: AnonymizerRisk) -> str:
        """Why the rule holds of a setting, which fails the audit; empty where it does not."""


@dataclass(frozen=True)
class ClaimRejected(Rule):
    """``k<20``: an attack rejects the claim that the setting is 20-anonymous.

    Attributes:
        k: the claim, at least 2. A gallery of fewer people can never stand up for it.
    """

    k: int

    def __str__(self) -> str:
        return f"k<{self.k}"

    def broken_by(self, risk: AnonymizerRisk) -> str:
        if risk.gallery_size < self.k:
            return f"with {risk.gallery_size} people in the gallery k = {self.k} cannot be tested"
        if risk.k_not_rejected < self.k:
            return f"the largest k not rejected is {risk.k_not_rejected} ({_attack(risk)})"
        return ""


@dataclass(frozen=True)
class RateAbove(Rule):
    """``rank_1>0.05``: the lower confidence bound of an attack's rank-1 rate exceeds a rate.

    Attributes:
        rate: in [0, 1).
    """

    rate: float

    def __str__(self) -> str:
        return f"rank_1>{self.rate:.12g}"

    def broken_by(self, risk: AnonymizerRisk) -> str:
        low = risk.tested_attack.low
        return f"the lower bound is {percent(low)} ({_attack(risk)})" if low > self.rate else ""


@dataclass(frozen=True)
class FindingRule(Rule):
    """``leak``: an attack beats chance. ``inconclusive``: that, or the attackers are too weak."""

    finding: Literal["leak", "inconclusive"]

    def __str__(self) -> str:
        return self.finding

    def broken_by(self, risk: AnonymizerRisk) -> str:
        if risk.finding == "leak":
            return f"people are named above chance ({_attack(risk)})"
        if self.finding == risk.finding == "inconclusive":
            return risk.note
        return ""


def parse_rules(given: str | Sequence[str] | None) -> tuple[Rule, ...]:
    """The rules of ``audit.fail_on``, none twice.

    Args:
        given: ``k<20 or leak``, ``k<20, leak`` or a list of such; None: no rules.

    Raises:
        ValueError: something is no rule; the message begins with the key ``fail_on``.
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
    if (claim := CLAIM.fullmatch(text)) and int(claim[1]) >= 2:
        return ClaimRejected(int(claim[1]))
    if (rate := RATE.fullmatch(text)) and float(rate[1]) < 1:
        return RateAbove(float(rate[1]))
    raise ValueError(f"fail_on: {text!r} is no rule; {ALLOWED}")


def check_identities(rules: Iterable[Rule], gallery_identities: int) -> None:
    """Find out before the work whether every rule can be tested.

    Args:
        people: number of people to be evaluated.

    Raises:
        BadInputError: a claim of k-anonymity needs more people; the message names the keys.
    """
    for rule in rules:
        if isinstance(rule, ClaimRejected) and rule.k > gallery_identities:
            raise BadInputError(
                f"audit.fail_on: {rule} cannot be tested on {gallery_identities} people; evaluate at least "
                f"{rule.k} (splits.n_evaluation_identities, splits.evaluation), or choose a smaller k"
            )


def evaluate_gate(
    rules: Sequence[Rule], candidates: Iterable[str], risks: Mapping[str, AnonymizerRisk]
) -> Gate:
    """Apply the rules to the settings that are to be released.

    A setting that nobody attacked fails whatever the rules are.

    Args:
        candidates: names of the settings.
        risks: the strongest attack on each setting that was attacked, by name.
    """
    if not rules:
        return Gate()
    reasons: list[str] = []
    for name in candidates:
        if name not in risks:
            reasons.append(f"{name}: no attack could be run on it")
            continue
        broken = [(rule, rule.broken_by(risks[name])) for rule in rules]
        reasons += [f"{name}: {rule}: {why}" for rule, why in broken if why]
    return Gate(" or ".join(map(str, rules)), tuple(reasons))


def _attack(risk: AnonymizerRisk) -> str:
    """The attack against which claims are tested, with its interval."""
    attack = risk.tested_attack
    return (
        f"{attack.attacker}, {protocol_name(attack.protocol)}: {percent(attack.value)}, "
        f"{percent(attack.low)} to {percent(attack.high)}"
    )
