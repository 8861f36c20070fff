"""The rules that fail a pipeline: how they are written, and when they hold."""

import re
from dataclasses import replace

import pytest

from cldmray.arrays import Interval
from cldmray.errors import BadInputError
from cldmray.evaluation.gate import (
    Breach,
    BreachKind,
    ClaimNotSupported,
    ClaimRejected,
    FindingRule,
    Linked,
    RateAbove,
    check_identities,
    evaluate_gate,
    parse_rules,
)
from cldmray.results.audit import AnonymizerRisk, AttackRate
from tests.given_risks import risk

RISK = risk("blur", high=0.11, value=0.08, low=0.06, k_not_rejected=16)
LINKED = AttackRate("pretrained", "full_ref", "anonymized_only", 0.1, 0.06, 0.2, 0.01)
CALM = replace(RISK, risk=0.01, low=0.005, high=0.02, k_not_rejected=100)
WEAK = replace(CALM, note="attacker too weak")
POOLED = replace(CALM, person_level=LINKED._replace(gallery="source_excluded"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ()),
        ("k<20", (ClaimRejected(20),)),
        ("rank_1>0.05", (RateAbove(0.05),)),
        ("rank_1 > 5e-2", (RateAbove(0.05),)),
        ("rank_1>0", (RateAbove(0.0),)),
        ("rank_1>.5", (RateAbove(0.5),)),
        ("leak", (FindingRule("leak"),)),
        ("k_supported<20", (ClaimNotSupported(20),)),
        ("linkage or linkage>0.05", (Linked(), Linked(0.05))),
        (" inconclusive ", (FindingRule("inconclusive"),)),
        ("k<20 or leak", (ClaimRejected(20), FindingRule("leak"))),
        ("k < 20,leak , rank_1>0.1", (ClaimRejected(20), FindingRule("leak"), RateAbove(0.1))),
        (["k<20", "leak or rank_1>0.1"], (ClaimRejected(20), FindingRule("leak"), RateAbove(0.1))),
        (["leak", "leak"], (FindingRule("leak"),)),
    ],
)
def test_rules_are_read(given: str | list[str] | None, expected: tuple[object, ...]) -> None:
    rules = parse_rules(given)
    assert rules == expected
    assert parse_rules(" or ".join(map(str, rules)) or None) == expected


@pytest.mark.parametrize(
    "given",
    [
        "", "leaks", "Leak", "k<1", "k<0", "k<-3", "k<2.5", "k<=20", "k>20", "20>k", "k", "k<",
        "k<\u0663\u0664", "rank_1>1", "rank_1>1.5", "rank_1>-0.1", "rank_1<0.1", "rank_1>5%",
        "rank_1>nan", "rank_5>0.1", "leak and k<20", "leak or", "or leak", "leak,", "leakork<20",
        "leak; k<20", "k_supported<1", "linkage>1", "linkage<0.5", "k_supported", [], [""],
        ["k<20", "x"], "k<9999999999",
    ],
)  # fmt: skip
def test_anything_else_is_refused(given: str | list[str]) -> None:
    with pytest.raises(ValueError, match="^fail_on: .*k<20 .*rank_1>0.05 .*leak and inconclusive"):
        parse_rules(given)


@pytest.mark.parametrize(
    ("rule", "risk", "kind"),
    [
        ("k<17", RISK, "claim_rejected"),
        ("k<16", RISK, None),
        ("k<100", CALM, None),
        ("k<101", CALM, "gallery_too_small"),
        ("k<100", WEAK, None),
        ("k_supported<20", RISK, "claim_not_supported"),
        ("k_supported<20", replace(CALM, k_supported=20), None),
        ("k_supported<101", replace(CALM, k_supported=100), "gallery_too_small"),
        ("linkage", CALM, "not_measured"),
        ("linkage", replace(CALM, linkage=LINKED), "linked"),
        ("linkage", replace(CALM, linkage=LINKED._replace(low=0.005)), None),
        ("linkage>0.05", replace(CALM, linkage=LINKED), "linked"),
        ("linkage>0.06", replace(CALM, linkage=LINKED), None),
        ("rank_1>0.05", RISK, "rate_exceeded"),
        ("rank_1>0.06", RISK, None),
        ("leak", RISK, "leak"),
        ("leak", CALM, None),
        ("leak", WEAK, None),
        ("leak", POOLED, "leak"),
        ("inconclusive", POOLED, "leak"),
        ("leak", replace(CALM, person_level=LINKED._replace(low=0.01)), None),
        ("inconclusive", RISK, "leak"),
        ("inconclusive", CALM, None),
        ("inconclusive", WEAK, "inconclusive"),
    ],
)
def test_when_a_rule_is_broken(rule: str, risk: AnonymizerRisk, kind: BreachKind | None) -> None:
    rules = parse_rules(rule)
    breaches = evaluate_gate(rules, ["blur"], {"blur": risk})
    assert breaches == ([Breach("blur", kind, rules[0], risk)] if kind else [])


def test_claims_are_tested_against_the_highest_lower_bound() -> None:
    firm = AttackRate("condition_match", "single_ref", "source_included", 0.075, 0.07, 0.08, 0.01)
    risk = replace(RISK, low=0.02, highest_lower_bound=firm)
    (breach,) = evaluate_gate(parse_rules("rank_1>0.05"), ["blur"], {"blur": risk})
    assert breach.kind == "rate_exceeded"


def test_linkage_is_tested_against_the_highest_lower_bound() -> None:
    firm = LINKED._replace(attacker="condition_match", value=0.09, low=0.08)
    risk = replace(CALM, linkage=LINKED, tested_linkage=firm)
    (breach,) = evaluate_gate(parse_rules("linkage>0.07"), ["blur"], {"blur": risk})
    assert breach.kind == "linked"
    assert evaluate_gate(parse_rules("linkage>0.08"), ["blur"], {"blur": risk}) == []


def test_where_nothing_but_linkage_was_measured_it_is_the_risk() -> None:
    risk = replace(RISK, gallery="anonymized_only", excess=Interval(0.07, 0.05, 0.1))
    for rule in ("linkage", "linkage>0.05"):
        (breach,) = evaluate_gate(parse_rules(rule), ["blur"], {"blur": risk})
        assert breach.kind == "linked"
    assert evaluate_gate(parse_rules("linkage>0.06"), ["blur"], {"blur": risk}) == []


def test_a_reason_is_not_said_twice() -> None:
    weak = replace(RISK, note="attacker too weak to conclude: try again")
    assert weak.unstated_note == weak.note
    stated = replace(weak, release_reason="Attacker too weak to conclude: try again.")
    assert stated.unstated_note == replace(stated, note="").unstated_note == ""


def test_without_rules_nothing_is_asked() -> None:
    assert evaluate_gate((), ["blur", "x"], {"blur": RISK}) == []


def test_every_setting_and_rule_that_fails() -> None:
    rules = parse_rules("rank_1>0.9 or leak or k<20")
    risks = {"blur": RISK, "calm": CALM, "no_op": replace(RISK, low=1.0, k_not_rejected=1)}
    breaches = evaluate_gate(rules, ["blur", "calm", "images"], risks)
    assert [(breach.anonymizer, breach.rule and str(breach.rule)) for breach in breaches] == [
        ("blur", "leak"),
        ("blur", "k<20"),
        ("images", None),
    ]


def test_a_claim_needs_as_many_people() -> None:
    rules = parse_rules("leak or k<20")
    check_identities(rules, 20)
    message = re.escape("audit.fail_on: k<20 cannot be tested on 19 people")
    with pytest.raises(BadInputError, match=message):
        check_identities(rules, 19)
