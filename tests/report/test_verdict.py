"""The verdict's sentence and its machine-readable part, and the reasons of the gate."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pytest

from cldmray.arrays import Interval
from cldmray.evaluation.decision import DEFAULT_POLICY, DecisionPolicy, decide
from cldmray.evaluation.gate import evaluate_gate, parse_rules
from cldmray.report.verdict import state_gate, state_verdict, verdict_tags
from cldmray.results.audit import AnonymizerRisk, AttackRate, UtilityRow, Verdict
from cldmray.results.schema import SCHEMA_VERSION
from tests.given_risks import risk

LEAK = risk("cldm-canny-1.0", high=0.71, value=0.62, low=0.5, k_not_rejected=2)
CALM = replace(LEAK, anonymizer="cldm-none", risk=0.02, low=0.004, high=0.031, k_not_rejected=100)
COPY = replace(LEAK, anonymizer="no_op", risk=1.0, low=0.96, high=1.0, k_not_rejected=1)
LINKED = AttackRate("pretrained", "full_ref", "anonymized_only", 0.3, 0.2, 0.4, 0.01)
WEAK = "attacker too weak to conclude: it identifies 40.0 %"


def verdict(
    risks: Sequence[AnonymizerRisk],
    controls: Iterable[str],
    policy: DecisionPolicy = DEFAULT_POLICY,
    utility: Sequence[UtilityRow] = (),
    weakness: str = "",
    missed: Mapping[str, Sequence[str]] | None = None,
) -> Verdict:
    reasons = dict.fromkeys((risk.anonymizer for risk in risks), weakness)
    return state_verdict(decide(risks, controls, policy, utility, weakness=reasons, missed=missed))


def test_a_single_leaking_setting() -> None:
    outcome = verdict([LEAK], set())
    assert outcome.sentence == (
        "cldm-canny-1.0 leaks identity. An adaptive attacker (adaptive_contrastive) identifies "
        "62.0 % of the images of cldm-canny-1.0 (95 % CI 50.0 % to 71.0 %; chance 1.0 %; Full-Ref, "
        "attacker has another image of the person). This rejects every claim of k-anonymity above "
        "k = 2."
    )
    assert outcome.severity == "leak"
    assert outcome.machine == {
        "schema_version": SCHEMA_VERSION,
        "severity": "leak",
        "fail_on": None,
        "gate": {"outcome": "none", "reasons": []},
        "target_k": 20,
        "rule": "Release: yes where every attack on single images identifies at most 1/20 (5.0 %) "
        "of them and the attackers have shown their ability; no where one, on single images or on "
        "all images of a person, identifies significantly more. Bounds hold for all attacks of one "
        "kind on an anonymizer at once (95 %).",
        "recommended": {
            "name": None,
            "reason": "No audited setting stays under 1/20 (5.0 %); the closest is "
            "cldm-canny-1.0 (upper bound 71.0 %).",
            "most_useful": None,
            "control": None,
            "utility": {},
        },
        "settings": [
            {
                "anonymizer": "cldm-canny-1.0",
                "candidate": True,
                "is_control": False,
                "release": "no",
                "release_reason": "An adaptive attacker (adaptive_contrastive), holding another "
                "image of the person, identifies 62.0 % of the images, at least 50.0 %, more than "
                "1/20 (5.0 %).",
                "finding": "leak",
                "rank_1": 0.62,
                "ci_low": 0.5,
                "ci_high": 0.71,
                "confidence_level": 0.95,
                "chance": 0.01,
                "attacker": "adaptive_contrastive",
                "protocol": "full_ref",
                "gallery": "source_excluded",
                "simultaneous_upper_bound": 0.71,
                "point_estimate_k": 1 / 0.62,
                "k_not_rejected": 2,
                "k_supported": 1,
                "cross_image": None,
                "same_image": None,
                "person_level": None,
                "linkage": None,
                "utility_kept": None,
                "keeps_nothing": False,
                "excess": None,
                "note": "",
            }
        ],
    }


def test_the_leak_with_the_highest_lower_bound_comes_first() -> None:
    unsure = replace(LEAK, anonymizer="blur", risk=0.8, low=0.4, high=0.9)
    outcome = verdict([CALM, unsure, LEAK], set())
    assert outcome.sentence.startswith(
        "2 of 3 settings leak identity (cldm-canny-1.0, blur). An adaptive attacker "
        "(adaptive_contrastive) identifies 62.0 % of the images of cldm-canny-1.0 "
    )
    assert [entry["finding"] for entry in outcome.machine["settings"]] == [
        "no_leak_found",
        "leak",
        "leak",
    ]


def test_one_of_several_leaks() -> None:
    sentence = verdict([CALM, LEAK], set()).sentence
    assert sentence.startswith(
        "1 of 2 settings leaks identity (cldm-canny-1.0). An adaptive attacker "
    )


def test_no_leak() -> None:
    outcome = verdict([CALM, replace(CALM, anonymizer="blur", high=0.025)], set())
    assert outcome.sentence == (
        "No attack on any of 2 settings is significantly above chance. At most 3.1 % of the images "
        "are identified (simultaneous upper bound, cldm-none; chance 1.0 %)."
    )
    assert outcome.severity == "no_leak_found"
    alone = verdict([CALM], set()).sentence
    assert alone.startswith("No attack on cldm-none is significantly above chance. ")


def test_a_weak_attacker_concludes_nothing() -> None:
    outcome = verdict([replace(CALM, note=WEAK)], set())
    assert outcome.severity == "inconclusive"
    assert outcome.sentence.endswith(f", but nothing can be concluded from that: {WEAK}.")
    assert outcome.machine["settings"][0]["note"] == WEAK


def test_a_note_on_another_setting_is_told_too() -> None:
    outcome = verdict([CALM, replace(CALM, anonymizer="blur", high=0.02, note=WEAK)], set())
    assert outcome.severity == "inconclusive"
    assert WEAK in outcome.sentence


def test_a_leak_counts_however_weak_the_attacker() -> None:
    outcome = verdict([replace(LEAK, note=WEAK), replace(CALM, note=WEAK)], set())
    assert outcome.severity == "leak"
    assert "1 of 2 settings" in outcome.sentence


def test_controls_are_listed_but_not_candidates() -> None:
    outcome = verdict([COPY, CALM], {"no_op"})
    assert outcome.severity == "no_leak_found"
    assert "no_op" not in outcome.sentence
    assert [entry["anonymizer"] for entry in outcome.machine["settings"]] == ["no_op", "cldm-none"]
    leaking = verdict([COPY, LEAK], {"no_op"})
    assert leaking.sentence.startswith("cldm-canny-1.0 leaks identity. ")


def test_a_control_alone_is_a_candidate() -> None:
    assert verdict([COPY], {"no_op"}).sentence.startswith("no_op leaks identity. An adaptive ")


def test_the_sentence_names_the_attack_that_rejects_the_claim() -> None:
    firm = AttackRate("condition_only", "few_ref", "source_included", 0.6, 0.55, 0.65, 0.03)
    risk = replace(LEAK, low=0.4, highest_lower_bound=firm, k_not_rejected=1)
    sentence = verdict([risk], set()).sentence
    assert "kind of condition (condition_only) identifies 60.0 % of the images" in sentence
    assert sentence.endswith("This rejects every claim of k-anonymity from k = 2 on.")
    assert "55.0 % to 65.0 %; chance 3.0 %; Few-Ref, attacker has the very image" in sentence
    usual = AttackRate("pretrained", "full_ref", "source_excluded", 0.1, 0.05, 0.2, 0.01)
    assert verdict([replace(risk, cross_image=usual)], set()).sentence.endswith(
        "With another image of the person only, 10.0 % are identified (5.0 % to 20.0 %)."
    )


def test_only_settings_for_release_are_candidates() -> None:
    policy = DecisionPolicy(rules=parse_rules("leak"), release=("cldm-none",))
    outcome = verdict([COPY, LEAK, CALM], {"no_op"}, policy)
    assert (outcome.severity, outcome.gate.outcome) == ("no_leak_found", "passed")
    assert [entry["candidate"] for entry in outcome.machine["settings"]] == [False, False, True]
    named = verdict([COPY, CALM], {"no_op"}, replace(policy, release=("no_op",)))
    assert named.gate.outcome == "failed"
    assert named.sentence.startswith("no_op leaks identity. ")


def test_a_setting_that_nobody_attacked_is_not_passed_over() -> None:
    policy = DecisionPolicy(rules=parse_rules("rank_1>0.9"), release=("images",))
    missed = {"no_op": [], "images": ["adaptive_contrastive"]}
    unknown = "No attack could be run on images, so nothing is known about their privacy."
    outcome = verdict([COPY], {"no_op"}, policy, missed=missed)
    assert (outcome.severity, outcome.sentence) == ("inconclusive", unknown)
    assert outcome.gate.reasons == ("images: no attack could be run on it",)
    assert outcome.machine["recommended"]["reason"] == (
        "No attack could be run on a candidate for release."
    )
    beside = verdict([COPY, CALM], {"no_op"}, missed=missed)
    assert beside.severity == "inconclusive"
    assert beside.sentence.startswith("No attack on cldm-none is significantly above chance. ")
    assert beside.sentence.endswith(unknown)


def test_what_follows_is_told_to_programs() -> None:
    utility = [
        UtilityRow(name, "ssim", value, value, value, 9, True)
        for name, value in {"no_op": 1.0, "cldm-none": 0.25, "cldm-canny-1.0": 0.5}.items()
    ]
    policy = DecisionPolicy(target_k=10, rules=parse_rules(["k<5", "leak"]))
    outcome = verdict([COPY, LEAK, CALM], {"no_op"}, policy, utility)
    assert outcome.machine["fail_on"] == "k<5 or leak"
    assert outcome.machine["gate"]["outcome"] == "failed"
    assert len(outcome.machine["gate"]["reasons"]) == 2
    assert outcome.machine["target_k"] == 10
    recommended = outcome.machine["recommended"]
    assert recommended["name"] == "cldm-none"
    assert recommended["utility"] == {"ssim": {"value": 0.25, "most_useful": 0.5, "control": 1.0}}
    calm = outcome.machine["settings"][2]
    assert (calm["point_estimate_k"], calm["k_supported"]) == (50, 32)
    assert json.loads(json.dumps(outcome.record))["sentence"] == outcome.sentence


def test_weak_attackers_support_no_k() -> None:
    outcome = verdict([LEAK, CALM], set(), weakness=WEAK)
    assert [entry["k_supported"] for entry in outcome.machine["settings"]] == [1, 1]
    assert outcome.machine["recommended"]["name"] is None


def test_weak_attackers_are_the_reason_where_a_leak_stays_under_the_target() -> None:
    within = replace(CALM, risk=0.025, low=0.015, high=0.04)
    policy = DecisionPolicy(rules=parse_rules("k_supported<20"))
    outcome = verdict([within], set(), policy, weakness=WEAK)
    (entry,) = outcome.machine["settings"]
    assert (entry["finding"], entry["release"], entry["note"]) == ("leak", "inconclusive", "")
    assert entry["release_reason"] == f"A{WEAK[1:]}."
    assert outcome.gate.reasons == (
        "cldm-none: k_supported<20: the largest k that the data support is 1 (upper bound 4.0 %, "
        f"and {WEAK})",
    )


def test_the_rule_names_all_conditions() -> None:
    rule = verdict([CALM], set(), DecisionPolicy(rules=parse_rules("leak"))).machine["rule"]
    assert rule.startswith(
        "Release: yes where every attack on single images identifies at most 1/20 (5.0 %) of them, "
        "the attackers have shown their ability and no rule of audit.fail_on is broken; no where "
    )


def test_tags() -> None:
    failed = verdict([LEAK], set(), DecisionPolicy(rules=parse_rules("leak")))
    tags = verdict_tags(failed)
    assert tags["verdict"] == failed.sentence
    assert (tags["gate"], tags["recommended"]) == ("failed", "none")
    assert tags["gate_reasons"].startswith("cldm-canny-1.0: leak: ")
    calm = verdict_tags(verdict([CALM], set()))
    assert (calm["gate"], calm["recommended"]) == ("none", "cldm-none")
    assert "gate_reasons" not in calm


class TestPersonLevel:
    """What single images do not tell: people are identified by all of their images together."""

    EXPOSED = replace(
        CALM, person_level=AttackRate("album", "full_ref", "source_excluded", 0.3, 0.2, 0.42, 0.02)
    )
    ATTACK = (
        "By all anonymized images of a person together, an attacker who pools a person's images "
        "(album) identifies 30.0 % of the people of cldm-none (95 % CI 20.0 % to 42.0 %; chance "
        "2.0 %; Full-Ref, attacker has another image of the person)."
    )

    def test_it_is_a_leak_though_single_images_are_none(self) -> None:
        outcome = verdict([self.EXPOSED], set(), DecisionPolicy(rules=parse_rules("leak")))
        assert outcome.sentence == (
            f"cldm-none leaks identity. {self.ATTACK} No attack on single images of cldm-none is "
            "significantly above chance. At most 3.1 % of the images are identified (simultaneous "
            "upper bound, cldm-none; chance 1.0 %)."
        )
        assert (outcome.severity, outcome.gate.outcome) == ("leak", "failed")
        assert outcome.gate.reasons == (
            "cldm-none: leak: people are recognised above chance by all of their images (album, "
            "Full-Ref: 30.0 %, 20.0 % to 42.0 %)",
        )

    def test_single_images_come_first(self) -> None:
        sentence = verdict([self.EXPOSED, LEAK], set()).sentence
        assert sentence.startswith(
            "2 of 2 settings leak identity (cldm-canny-1.0, cldm-none). An adaptive attacker "
        )
        assert sentence.endswith(self.ATTACK)

    def test_it_is_told_of_a_leak_where_it_forbids_the_release(self) -> None:
        within = replace(self.EXPOSED, risk=0.03, low=0.02, high=0.045)
        assert verdict([within], set()).sentence.endswith(self.ATTACK)
        both = replace(LEAK, person_level=self.EXPOSED.person_level)
        assert "By all anonymized images" not in verdict([both], set()).sentence


class TestLinkageAlone:
    """Whoever holds no original can identify nobody, so that nothing follows for a release."""

    CALM = replace(CALM, gallery="anonymized_only")
    REASON = "no attacker held an original; add source_excluded to audit.galleries"

    def test_it_allows_no_release(self) -> None:
        policy = DecisionPolicy(rules=parse_rules("k_supported<20"))
        outcome = verdict([self.CALM], set(), policy, weakness=WEAK)
        assert outcome.severity == "inconclusive"
        assert outcome.sentence == (
            "No attack on cldm-none is significantly above chance. At most 3.1 % of the images are "
            "linked (simultaneous upper bound, cldm-none; chance 1.0 %), but nothing can be "
            f"concluded from that: {self.REASON}."
        )
        (entry,) = outcome.machine["settings"]
        assert (entry["release"], entry["k_supported"]) == ("inconclusive", 1)
        assert entry["release_reason"] == f"N{self.REASON[1:]}."
        assert outcome.machine["recommended"]["name"] is None
        assert outcome.gate.reasons[0].endswith(f"(upper bound 3.1 %, and {self.REASON})")

    def test_images_are_linked_and_not_identified(self) -> None:
        leak = replace(LEAK, gallery="anonymized_only")
        outcome = verdict([leak], set(), DecisionPolicy(rules=parse_rules("leak")))
        assert outcome.sentence == (
            "Anonymized images of one person are linked with each other (cldm-canny-1.0). An "
            "adaptive attacker (adaptive_contrastive) links 62.0 % of the images of cldm-canny-1.0 "
            "(95 % CI 50.0 % to 71.0 %; chance 1.0 %; Full-Ref, attacker has other anonymized "
            f"images only). Nobody is identified by that: {self.REASON}."
        )
        (entry,) = outcome.machine["settings"]
        assert entry["release"] == "no"
        assert "links 62.0 % of the images, at least 50.0 %" in entry["release_reason"]
        assert "images of one person are linked above chance" in outcome.gate.reasons[0]


ATTACK = "(adaptive_contrastive, Full-Ref: 62.0 %, 50.0 % to 71.0 %)"


@pytest.mark.parametrize(
    ("rule", "risk", "reason"),
    [
        ("k<17", LEAK, f"the largest k not rejected is 2 {ATTACK}"),
        ("k<101", CALM, "with 100 people in the gallery k<101 cannot be tested"),
        ("rank_1>0.05", LEAK, f"the lower bound is 50.0 % {ATTACK}"),
        ("leak", LEAK, f"identities are recognised above chance {ATTACK}"),
        ("inconclusive", replace(CALM, note=WEAK), WEAK),
        ("leak", CALM, ""),
        ("k_supported<40", CALM, "the largest k that the data support is 1 (upper bound 3.1 %)"),
        ("linkage", CALM, "linkage cannot be tested; add anonymized_only to audit.galleries"),
        (
            "linkage>0.1",
            replace(CALM, linkage=LINKED),
            "images of one person are linked with each other (pretrained, Full-Ref: 30.0 %, "
            "20.0 % to 40.0 %)",
        ),
    ],
)
def test_reasons_of_the_gate(rule: str, risk: AnonymizerRisk, reason: str) -> None:
    rules = parse_rules(rule)
    gate = state_gate(rules, evaluate_gate(rules, ["blur"], {"blur": risk}))
    assert gate.reasons == ((f"blur: {rule}: {reason}",) if reason else ())
    assert gate.outcome == ("failed" if reason else "passed")
    assert gate.rules == rule


def test_the_reason_names_the_attack_with_the_highest_lower_bound() -> None:
    firm = AttackRate("condition_match", "single_ref", "source_included", 0.075, 0.07, 0.08, 0.01)
    risk = replace(CALM, low=0.02, highest_lower_bound=firm)
    rules = parse_rules("rank_1>0.05 or k<4")
    gate = state_gate(rules, evaluate_gate(rules, ["blur", "images"], {"blur": risk}))
    assert gate.reasons == (
        "blur: rank_1>0.05: the lower bound is 7.0 % (condition_match, Single-Ref: 7.5 %, 7.0 % to "
        "8.0 %)",
        "images: no attack could be run on it",
    )
    assert gate.rules == "rank_1>0.05 or k<4"
    assert state_gate((), evaluate_gate((), ["blur"], {"blur": risk})).outcome == "none"


def test_linkage_is_told() -> None:
    sentence = verdict([replace(CALM, linkage=LINKED)], set()).sentence
    assert sentence.endswith(
        "Anonymized images of one person can be linked with each other (cldm-none): of cldm-none "
        "30.0 % find another image of their person first (20.0 % to 40.0 %; chance 1.0 %)."
    )
    calm = LINKED._replace(low=0.001)
    assert "linked" not in verdict([replace(CALM, linkage=calm)], set()).sentence


class TestSeverityAndRelease:
    """The severity of the whole never contradicts what is said of the single anonymizers."""

    BELOW = replace(CALM, risk=0.03, low=0.02, high=0.045)
    UNDECIDED = replace(CALM, anonymizer="blur", high=0.2)
    POOLED = replace(CALM, person_level=LINKED._replace(low=0.04))

    @pytest.mark.parametrize(
        ("risks", "severity"),
        [
            ([CALM], "no_leak_found"),
            ([BELOW], "leak_within_target"),
            ([CALM, UNDECIDED], "inconclusive"),
            ([BELOW, UNDECIDED], "inconclusive"),
            ([replace(BELOW, high=0.2)], "leak"),
            ([POOLED], "leak_within_target"),
            ([replace(POOLED, high=0.2)], "leak"),
            ([replace(CALM, person_level=LINKED)], "leak"),
            ([CALM, LEAK], "leak"),
        ],
    )
    def test_severity(self, risks: list[AnonymizerRisk], severity: str) -> None:
        assert verdict(risks, set()).severity == severity

    @pytest.mark.parametrize(
        ("risk", "rules", "reason"),
        [
            (CALM, None, "At most 3.1 % of the images are identified, not more than 1/20 (5.0 %)."),
            (BELOW, None, "At most 4.5 % of the images are identified, which is still above chance,"
             " not more than 1/20 (5.0 %)."),
            (BELOW, "leak", "leak: identities are recognised above chance "
             "(adaptive_contrastive, Full-Ref: 3.0 %, 2.0 % to 4.5 %)."),
            (UNDECIDED, None, "The data support k = 5: at most 20.0 % of the images are identified,"
             " and 1/20 (5.0 %) is asked for."),
            (replace(CALM, note=WEAK), None, f"A{WEAK[1:]}."),
            (replace(CALM, gallery_size=8), None,
             "8 people in the gallery can show no more than k = 8, not 20."),
            (replace(CALM, person_level=LINKED), None, "A public face recognizer (pretrained), "
             "holding other anonymized images only, identifies 30.0 % of the people by all of "
             "their images, at least 20.0 %, more than 1/20 (5.0 %)."),
            (replace(CALM, person_level=LINKED._replace(value=0.04, low=0.01, high=0.135)), None,
             "At most 3.1 % of the images are identified, not more than 1/20 (5.0 %). By all "
             "images of a person together up to 13.5 % of the people may be identified: more "
             "people must be audited to say less."),
            (replace(CALM, person_level=LINKED._replace(value=0.04, low=0.02, high=0.135)), None,
             "At most 3.1 % of the images are identified, not more than 1/20 (5.0 %). By all "
             "images of a person together 4.0 % of the people are identified, at most 13.5 %, "
             "which is above chance: more people must be audited to say less."),
            (replace(CALM, person_level=LINKED), "leak",
             "A public face recognizer (pretrained), "
             "holding other anonymized images only, identifies 30.0 % of the people by all of "
             "their images, at least 20.0 %, more than 1/20 (5.0 %)."),
            (POOLED, "leak", "leak: people are recognised above chance by all of their images "
             "(pretrained, Full-Ref: 30.0 %, 4.0 % to 40.0 %)."),
            (replace(CALM, person_level=LINKED._replace(value=0.02, low=0.0, high=0.05)), None,
             "At most 3.1 % of the images are identified, not more than 1/20 (5.0 %)."),
        ],
    )  # fmt: skip
    def test_reason(self, risk: AnonymizerRisk, rules: str | None, reason: str) -> None:
        policy = DecisionPolicy(rules=parse_rules(rules))
        (entry,) = verdict([risk], set(), policy).machine["settings"]
        assert entry["release_reason"] == reason

    def test_a_leak_whose_interval_reaches_chance_is_explained(self) -> None:
        paired = replace(self.BELOW, low=0.008, excess=Interval(0.02, 0.004, 0.04))
        (entry,) = verdict([paired], set()).machine["settings"]
        assert entry["finding"] == "leak"
        assert (
            "3.0 % is above chance though the interval begins at 0.80 %" in entry["release_reason"]
        )

    def test_a_random_face_is_said_to_be_one(self) -> None:
        utility = [UtilityRow("cldm-none", "ssim", 0.2, 0.1, 0.3, 9, True, 1.0, 0.2)]
        (entry,) = verdict([CALM], set(), utility=utility).machine["settings"]
        assert entry["release_reason"].endswith(
            "; but it keeps no more of the original than a random face."
        )
        assert entry["utility_kept"]["value"] == pytest.approx(0)
