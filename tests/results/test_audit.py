"""What the report's dataclasses conclude."""

from dataclasses import replace

import pytest

from cldmray.results.audit import Verdict


@pytest.mark.parametrize("severity", ["leak", "inconclusive", "no_leak_found"])
def test_severity_comes_from_the_machine_part(severity):
    assert Verdict("", {"severity": severity}).severity == severity


@pytest.mark.parametrize("machine", [{}, {"severity": "fine"}, {"severity": None}])
def test_unknown_severity_is_neutral(machine):
    assert Verdict("", machine).severity == "neutral"


def test_a_weak_attacker_is_never_privacy(report):
    risk = replace(report.risks[0], low=0.001, chance=0.01, note="")
    assert risk.finding == "no_leak_found"
    assert replace(risk, note="attacker too weak to conclude").finding == "inconclusive"
    assert replace(risk, low=0.02, note="attacker too weak to conclude").finding == "leak"


def test_risks_and_curves_are_ranked_by_risk(report):
    values = [risk.risk for risk in report.ranked_risks]
    assert values == sorted(values, reverse=True)
    names = [risk.anonymizer for risk in report.ranked_risks]
    assert [curve.anonymizer for curve in report.strongest_curves()] == names


def test_curves_of_weaker_attacks_are_left_out(report):
    weaker = replace(report.curves[0], attacker="somebody else")
    curves = replace(report, curves=[weaker, *report.curves[1:]]).strongest_curves()
    assert len(curves) == len(report.curves) - 1
    assert weaker not in curves
