"""The verdict's sentence and its machine-readable part."""

from dataclasses import replace

from cldmray.report.model import AnonymizerRisk
from cldmray.verdict import verdict

LEAK = AnonymizerRisk(
    anonymizer="cldm-canny-1.0",
    risk=0.62,
    low=0.5,
    high=0.71,
    attacker="adaptive",
    protocol="full_ref",
    gallery="source_excluded",
    chance=0.01,
    largest_k=2,
    level=0.95,
)
CALM = replace(LEAK, anonymizer="cldm-none", risk=0.02, low=0.004, high=0.031, largest_k=100)
COPY = replace(LEAK, anonymizer="copy", risk=1.0, low=0.96, high=1.0, largest_k=1)
WEAK = "attacker too weak to conclude: it names 40.0 %"


def test_a_single_leaking_setting() -> None:
    found = verdict([LEAK], set())
    assert found.sentence == (
        "cldm-canny-1.0 gives people away: with cldm-canny-1.0, the adaptive attack names the "
        "right person in 62.0 % of photos (95 % confidence: 50.0 % to 71.0 %; guessing: 1.0 %; "
        "Full-Ref, source excluded), which rejects every claim of k-anonymity above k = 2."
    )
    assert found.severity == "leak"
    assert found.machine == {
        "severity": "leak",
        "settings": [
            {
                "anonymizer": "cldm-canny-1.0",
                "finding": "leak",
                "rank_1": 0.62,
                "ci_low": 0.5,
                "ci_high": 0.71,
                "level": 0.95,
                "chance": 0.01,
                "attacker": "adaptive",
                "protocol": "full_ref",
                "gallery": "source_excluded",
                "largest_k_not_rejected": 2,
                "note": "",
            }
        ],
    }


def test_the_surest_leak_comes_first() -> None:
    unsure = replace(LEAK, anonymizer="blur", risk=0.8, low=0.4, high=0.9)
    found = verdict([CALM, unsure, LEAK], set())
    assert found.sentence.startswith(
        "2 of 3 settings give people away (cldm-canny-1.0, blur): with cldm-canny-1.0, the "
    )
    assert [entry["finding"] for entry in found.machine["settings"]] == [
        "no_leak_found",
        "leak",
        "leak",
    ]


def test_one_of_several_leaks() -> None:
    sentence = verdict([CALM, LEAK], set()).sentence
    assert sentence.startswith("1 of 2 settings gives people away (cldm-canny-1.0): with ")


def test_no_leak() -> None:
    found = verdict([CALM, replace(CALM, anonymizer="blur", high=0.025)], set())
    assert found.sentence == (
        "No attack on any of 2 settings can be told from guessing; the most that is compatible "
        "with the measurements is 3.1 % of photos named rightly (cldm-none; guessing: 1.0 %)."
    )
    assert found.severity == "no_leak_found"
    alone = verdict([CALM], set()).sentence
    assert alone.startswith("No attack on cldm-none can be told from guessing; ")


def test_a_weak_attacker_concludes_nothing() -> None:
    found = verdict([replace(CALM, note=WEAK)], set())
    assert found.severity == "inconclusive"
    assert found.sentence.endswith(f", but nothing can be concluded from that: {WEAK}.")
    assert found.machine["settings"][0]["note"] == WEAK


def test_a_note_on_another_setting_is_told_too() -> None:
    found = verdict([CALM, replace(CALM, anonymizer="blur", high=0.02, note=WEAK)], set())
    assert found.severity == "inconclusive"
    assert WEAK in found.sentence


def test_a_leak_counts_however_weak_the_attacker() -> None:
    found = verdict([replace(LEAK, note=WEAK), replace(CALM, note=WEAK)], set())
    assert found.severity == "leak"
    assert "1 of 2 settings" in found.sentence


def test_controls_are_listed_but_not_judged() -> None:
    found = verdict([COPY, CALM], {"copy"})
    assert found.severity == "no_leak_found"
    assert "copy" not in found.sentence
    assert [entry["anonymizer"] for entry in found.machine["settings"]] == ["copy", "cldm-none"]
    leaking = verdict([COPY, LEAK], {"copy"})
    assert leaking.sentence.startswith("cldm-canny-1.0 gives people away: ")


def test_a_control_alone_is_judged() -> None:
    assert verdict([COPY], {"copy"}).sentence.startswith("copy gives people away: with copy, ")
