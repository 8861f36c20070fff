"""What stands in the tables of the audit's page."""

from dataclasses import replace

import pyarrow as pa
import pytest

from cldmray.hashing import identity_hash
from cldmray.report.html import render_html
from cldmray.report.tables import (
    attack_matrix,
    attackers_known,
    attackers_sentence,
    chance_text,
    confident_claims,
    decision_order,
    gallery_growth,
    group_table,
    most_exposed,
    simultaneous_rates,
    untouched_faces,
    with_one_interval,
)
from cldmray.results.audit import AttackerDiagnostics, AttackRate
from cldmray.results.content import InferenceRow, UntouchedFaces
from cldmray.results.exposed import ExposedIdentity
from cldmray.results.table import RESULTS

RATE = AttackRate("pretrained", "full_ref", "source_excluded", 0.5, 0.25, 0.75, 0.01)


def row(anonymizer="blur", attacker="pretrained", value=0.5, **more):
    return {
        "anonymizer": anonymizer, "attacker": attacker, "protocol": "full_ref",
        "gallery": "source_excluded", "level": "image", "subset": "all", "measure": "rank_1",
        "value": value, "ci_low": 0.4, "ci_high": 0.6, "chance": 0.01, "n_identities": 9, **more,
    }  # fmt: skip


def test_controls_stand_last(report):
    risks = [replace(report.risks[-1], is_control=True), *report.risks[:-1]]
    names = [risk.anonymizer for risk in decision_order(replace(report, risks=risks))]
    assert names[-1] == risks[0].anonymizer
    rates = {risk.anonymizer: risk.risk for risk in risks}
    assert [rates[name] for name in names[:-1]] == sorted(
        (rates[name] for name in names[:-1]), reverse=True
    )


def test_a_control_with_an_answer_stands_among_the_candidates(report):
    risks = [replace(report.ranked_risks[0], is_control=True, release="no"), *report.risks]
    names = [risk.anonymizer for risk in decision_order(replace(report, risks=risks))]
    assert names[0] == risks[0].anonymizer


def test_the_linkage_that_is_tested_has_simultaneous_bounds(report):
    best, tested = (
        AttackRate(attacker, "full_ref", "anonymized_only", 0.4, low, 0.6, 0.01)
        for attacker, low in (("a", 0.2), ("b", 0.25))
    )
    risk = replace(report.risks[0], linkage=best, tested_linkage=tested)
    rates = simultaneous_rates([risk])
    for attack in (best, tested):
        where = attack.attacker, attack.protocol, attack.gallery
        assert rates[risk.anonymizer, *where, "image"] == attack


def test_a_rate_has_the_bounds_of_the_first_table(report):
    risk = replace(
        report.risks[0], anonymizer="blur", cross_image=RATE, person_level=RATE._replace(low=0.1)
    )
    rates = simultaneous_rates([risk])
    rows = [
        row(), row(level="person"), row(attacker="mine"), row(measure="rank_5"),
        row(subset="sex=female"),
    ]  # fmt: skip
    listed = with_one_interval(rows, rates)
    bounds = [(item["ci_low"], item["ci_high"], item["simultaneous"]) for item in listed]
    own = (0.4, 0.6, False)
    assert bounds == [(0.25, 0.75, True), (0.1, 0.75, True), own, own, own]
    assert "simultaneous" not in rows[0]


def test_the_matrix_has_a_panel_for_what_the_attacker_holds():
    rows = [
        row(gallery="anonymized_only", chance=0.5),
        row(gallery="source_included"),
        row("mine", "zeta", 0.1, chance=0.02),
        row(attacker="score_fusion"),
        row(level="person"),
        row(value=0.25),
        row(value=None, attacker="condition_match"),
        row(measure="rank_5"),
        row(subset="sex=female"),
    ]
    panels = attack_matrix(rows, ["blur"])
    assert [panel.label for panel in panels] == [
        "another image of the person, Full-Ref",
        "the very image, Full-Ref",
        "other anonymized images only, Full-Ref",
        "another image of the person, Full-Ref, all images of a person together",
    ]
    first = panels[0]
    assert first.attackers == ["pretrained", "score_fusion", "zeta"]
    assert first.rows == [("blur", [0.25, 0.5, None]), ("mine", [None, None, 0.1])]
    assert first.chance == 0.02


def test_groups_stand_beside_each_other(report):
    risks = [
        replace(report.risks[0], anonymizer=name, cross_image=RATE) for name in ("blur", "k_same")
    ]
    rows = [
        row(subset="skin_tone=II", value=0.1, n_identities=5),
        row("k_same", subset="skin_tone=II", value=0.2, n_identities=6),
        row(subset="sex=female|within", value=0.3),
        row(subset="sex=female-male", measure="rank_1_difference", value=-0.1),
        row(subset="region=face", value=0.9),
        row(subset="sex=male", attacker="condition_match", value=0.9),
        row(),
    ]
    table = group_table(rows, risks)
    assert table.anonymizers == ["blur", "k_same"]
    listed = [
        (group, count, [cell and cell["value"] for cell in by_name])
        for group, count, by_name in table.rows
    ]
    assert listed == [
        ("skin tone: II", 6, [0.1, 0.2]),
        ("sex: female, impostors of the same group", 9, [0.3, None]),
    ]
    ((group, _, _),) = group_table(rows, risks, "rank_1_difference").rows
    assert group == "sex: female less male"


def test_how_good_the_attackers_were(report):
    assert attackers_sentence(report) == "None of the attackers has been tried on clean images."
    rows = [
        AttackerDiagnostics("blur", "pretrained", 0.97, 0, 0, None, None),
        AttackerDiagnostics("blur", "adaptive_contrastive", 0.5, 1, 100, 0.5, 0.3),
        AttackerDiagnostics("blur", "student", None, 1, 9, 0.1, 0.0, 0.1, ability="not_shown"),
    ]
    settings = {"audit": {"min_clean_rank_1": 0.9}}
    assert attackers_sentence(replace(report, diagnostics=rows, settings=settings)) == (
        "Of 3 attackers the best, pretrained recognizer, identifies 97.0 % of clean images; "
        "90.0 % are required. Too weak to conclude by themselves: student. Trainings that had not "
        "converged: 1."
    )


def test_what_is_known_of_the_attackers(report):
    names = [attacker.title for attacker in attackers_known(report)]
    assert names[:2] == ["pretrained recognizer", "clean-trained encoder"]
    assert len(names) == len(set(report.results["attacker"].to_pylist()))


@pytest.mark.parametrize(
    ("chances", "text"), [((0.01, 0.01), "1.0 %"), ((0.01, 0.043), "1.0 % to 4.3 %")]
)
def test_chance(report, chances, text):
    risks = [replace(report.risks[0], chance=chance) for chance in chances]
    assert chance_text(risks) == text


def with_rows(report, *rows):
    """The report with these rows of the strongest attack on its first anonymizer."""
    risk = report.risks[0]
    where = {
        "anonymizer": risk.anonymizer, "attacker": risk.attacker, "protocol": risk.protocol,
        "gallery": risk.gallery, "n_probes": 9, "n_non_mated": 0, "gallery_size": 9, "reason": None,
    }  # fmt: skip
    table = pa.Table.from_pylist([{**row(), **where, **more} for more in rows], RESULTS)
    return replace(report, risks=[risk], results=table)


def test_the_risk_over_the_gallery(report):
    none = {"ci_low": None, "ci_high": None, "reason": "extrapolated"}
    grown = with_rows(
        report,
        {"measure": "rank_1_at_gallery_1000", "value": 0.2, "gallery_size": 1000, **none},
        {"measure": "rank_1_at_gallery_10", "value": 0.8, "gallery_size": 10, "chance": 0.2},
        {"measure": "rank_1_at_gallery_2", "value": 0.9, "gallery_size": 2},
        {"measure": "rank_1_at_gallery_2", "value": 0.1, "level": "person"},
        {"measure": "rank_1", "value": 0.5},
    )
    assert gallery_growth(grown) == {
        report.risks[0].anonymizer: [
            (2, 0.9, False, 0.01),
            (10, 0.8, False, 0.2),
            (1000, 0.2, True, 0.01),
        ]
    }


def test_the_most_confident_claims(report):
    sure = with_rows(
        report,
        {"measure": "precision_top_5pct", "value": 0.75},
        {"measure": "precision_top_1pct", "value": None, "reason": "less than one claim"},
    )
    ((name, rows),) = confident_claims(sure)
    assert name == report.risks[0].anonymizer
    assert [cell and cell["value"] for cell in rows] == [None, 0.75, None]
    assert confident_claims(report) == []


def test_the_most_exposed_people(report):
    def exposed_identity(name, share, low, gallery="source_excluded", anonymizer="blur"):
        return ExposedIdentity(
            anonymizer, gallery, name, "pretrained", "full_ref", 6, 6 * share, share, low, 1.0,
            0.01, 2, 5,
        )  # fmt: skip

    exposed = replace(
        report,
        exposed_identities=[
            exposed_identity("zoe", 0.5, 0.1),
            exposed_identity("ann", 1.0, 0.4),
            exposed_identity("bob", 0.0, 0.0),
            exposed_identity("eve", 1.0, 0.4, gallery="source_included"),
            exposed_identity("ann", 1.0, 0.4, anonymizer="no_op"),
        ],
    )
    exposed = replace(
        exposed,
        risks=[replace(risk, is_control=risk.anonymizer == "no_op") for risk in report.risks],
    )
    ((name, n_identities, n_significant, most),) = most_exposed(exposed)
    assert (name, n_identities, n_significant) == ("blur", 3, 2)
    assert [each.identity for each in most] == ["ann", "zoe", "bob"]
    page = render_html(exposed, {})
    section = page[page.index('<section id="exposed">') :].split("</section>")[0]
    assert identity_hash("ann") in section and "3 of 6" in section and "zoe" not in section
    assert "2 of 3 people" in section
    named = [replace(risk, release="no") if risk.is_control else risk for risk in exposed.risks]
    listed = most_exposed(replace(exposed, risks=named))
    assert {each.anonymizer for each in listed} == {"blur", "no_op"}


def test_untouched_faces_are_told_first(report):
    touched, control, left = (
        UntouchedFaces(name, 600, count, None, count, count / 600, 0.01, 0.04)
        for name, count in (("k_same", 0), ("no_op", 600), ("blur", 12))
    )
    risks = [replace(risk, is_control=risk.anonymizer == "no_op") for risk in report.risks]
    whole = replace(report, risks=risks, untouched=[control, left, touched])
    assert untouched_faces(whole) == [left]
    named = [replace(risk, release="no") if risk.is_control else risk for risk in risks]
    assert untouched_faces(replace(whole, risks=named)) == [control, left]
    first = render_html(whole, {}).split("<nav")[0]
    assert "<bdi>blur</bdi>: 12 of 600 images" in first and "600 of 600" not in first
    assert "left as they were" not in render_html(report, {})


def test_what_can_be_inferred(report):
    row = InferenceRow(
        "blur", "pretrained", "skin_tone", 0.4, 0.35, 0.45, 0.17, 0.41, 600, 100, 600
    )
    page = render_html(replace(report, inference=[row]), {})
    section = page[page.index('<section id="inference">') :].split("</section>")[0]
    assert "skin tone" in section and "40.0 %" in section and "35.0 % to 45.0 %" in section
    assert "17.0 %" in section and "41.0 %" in section
    assert '<section id="inference">' not in render_html(report, {})
