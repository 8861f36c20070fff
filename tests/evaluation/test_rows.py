"""Rows of results: what each holds, for all people and for groups of them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cldmray.evaluation.by_identity.groups import SMALLEST_GROUP, group_members
from cldmray.evaluation.identification import AttackResult, anonymizer_risks
from cldmray.evaluation.rows import result_rows, results_table
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.gallery.ranking import Ranks
from cldmray.results.table import ALL, RESULTS

SETTINGS = EvaluationSettings(n_bootstrap=200)
IDENTITIES = [f"p{number}" for number in range(12)]


def attack(attacker: str = "adaptive_contrastive") -> AttackResult:
    """Two probes each of 12 people; the first six people are named, the others come last."""
    identities = np.array(IDENTITIES * 2)
    n_higher = np.array(([0] * 6 + [39] * 6) * 2)
    samples = np.array([f"{place:04d}" for place in range(24)])
    ranks = Ranks(n_higher, np.zeros(24, np.int64), identities, samples, 40)
    return AttackResult("blur", attacker, "full_ref", "source_excluded", ranks)


def groups() -> pa.Table:
    """Five people are f, six m, one unknown; four are old; strangers are both."""
    sexes = ["f"] * 5 + ["m"] * 6 + [None]
    ages = ["old"] * 4 + ["young"] * 8
    return pa.table(
        {
            "identity": [*IDENTITIES[::-1], "stranger"],
            "sex": [*sexes[::-1], "f"],
            "age": [*ages[::-1], "old"],
        }
    )


def test_rows_of_all_people() -> None:
    rows = result_rows(attack(), SETTINGS)
    assert {row["subset"] for row in rows} == {ALL}
    assert len({row["measure"] for row in rows}) == len(rows) == 12
    for row in rows:
        assert set(row) == set(RESULTS.names)
        assert (row["n_probes"], row["n_identities"], row["gallery_size"]) == (24, 12, 40)
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
        assert (row["anonymizer"], row["attacker"]) == ("blur", "adaptive_contrastive")
        assert (row["protocol"], row["gallery"]) == ("full_ref", "source_excluded")


def test_trials_of_several_trainings_are_the_same_probes() -> None:
    single = attack()
    twice = [np.concatenate([column] * 2) for column in single.ranks[:4]]
    rows = result_rows(replace(single, ranks=Ranks(*twice, 40)), SETTINGS)  # type: ignore[arg-type]
    assert (rows[0]["n_probes"], rows[0]["n_identities"]) == (24, 12)
    assert rows[0]["value"] == 0.5


class TestGroups:
    def test_members(self) -> None:
        outcome = group_members(groups(), np.array(IDENTITIES))
        assert list(outcome) == ["sex=f", "sex=m", "age=young"]
        assert outcome["sex=f"].tolist() == sorted(IDENTITIES[:5])
        assert outcome["age=young"].tolist() == sorted(IDENTITIES[4:])

    def test_small_groups_have_no_rows(self) -> None:
        assert SMALLEST_GROUP == 5
        outcome = group_members(groups(), np.array(IDENTITIES[1:]))
        assert list(outcome) == ["sex=m", "age=young"]
        assert group_members(groups(), np.array(["nobody"])) == {}
        assert group_members(None, np.array(IDENTITIES)) == {}

    def test_rows(self) -> None:
        rows: dict[str, dict[str, Any]] = {
            row["subset"]: row
            for row in result_rows(
                attack(), SETTINGS, group_members(groups(), np.array(IDENTITIES))
            )
            if row["measure"] == "rank_1"
        }
        assert list(rows) == [ALL, "sex=f", "sex=m", "age=young"]
        assert rows["sex=f"]["value"] == 1
        assert rows["sex=m"]["value"] == pytest.approx(1 / 6)
        assert rows["age=young"]["value"] == pytest.approx(2 / 8)
        assert (rows["sex=m"]["n_probes"], rows["sex=m"]["n_identities"]) == (12, 6)
        assert {row["gallery_size"] for row in rows.values()} == {40}
        assert [row["chance"] for row in rows.values()] == pytest.approx([1 / 40] * len(rows))
        assert rows["sex=f"]["ci_low"] < 1 == rows["sex=f"]["ci_high"]


def test_results_table() -> None:
    both = [attack(), attack("condition_only")]
    risks = anonymizer_risks(both, SETTINGS, {})
    outcome = results_table(both, risks, SETTINGS, groups())
    assert outcome.schema == RESULTS
    # The strongest attack, here the first of two alike, has seven sizes of galleries and a
    # difference between groups besides.
    names = ["adaptive_contrastive"] * 15 + ["condition_only"] * 15 + ["adaptive_contrastive"] * 8
    assert outcome["attacker"].to_pylist() == names
    assert outcome == results_table(both, risks, SETTINGS, groups())
    assert results_table(both, risks, SETTINGS).num_rows == 24 + 7
    assert results_table([], [], SETTINGS).schema == RESULTS


def test_the_attack_that_is_shown_has_the_rows_of_galleries() -> None:
    """Two attacks of one rate: that whose hits are of two people is less sure, and comes first."""
    identities = np.repeat([f"p{number}" for number in range(10)], 4)
    samples = np.array([f"{place:02d}" for place in range(40)])

    def hitting(attacker: str, gallery: str, hits: list[int]) -> AttackResult:
        n_higher = np.where(np.isin(np.arange(40), hits), 0, 3)
        ranks = Ranks(n_higher, np.zeros(40, np.int64), identities, samples, 10)
        return AttackResult("blur", attacker, "full_ref", gallery, ranks)

    tied = {"first": list(range(8)), "second": list(range(0, 32, 4))}
    attacks = [
        hitting(attacker, gallery, hits)
        for gallery in ("source_excluded", "source_included")
        for attacker, hits in tied.items()
    ]
    risks = anonymizer_risks(attacks, SETTINGS, {})
    assert risks[0].shown_attack.attacker == "second"
    rows = results_table(attacks, risks, SETTINGS).to_pylist()
    detailed = [row for row in rows if row["measure"] == "rank_1_at_gallery_5"]
    assert [(row["attacker"], row["gallery"]) for row in detailed] == [
        ("second", "source_excluded"),
        ("second", "source_included"),
    ]
