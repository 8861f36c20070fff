"""Shares of the leak from hand-made outcomes."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from cldmray.evaluation.attribution import (
    AblationGrid,
    Swap,
    ablation_rows,
    paired,
    proxy_rows,
    rate_row,
    region_rows,
    swap_rows,
)
from cldmray.evaluation.identification import AttackResult
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.gallery.ranking import Ranks, pool_ranks
from cldmray.metrics.confidence import paired_bootstrap
from cldmray.report.statements import attribution_headline, scale_statements
from cldmray.results.attribution import AttributionRow, attribution_table

SETTINGS = EvaluationSettings(n_bootstrap=400)
IDENTITIES = 40


def attack(
    name: str,
    hits: Sequence[int],
    attacker: str = "adaptive_contrastive",
    gallery: str = "source_excluded",
) -> AttackResult:
    """People 0 ... 39 have two images each; ``hits`` are the people who are always named."""
    gallery_identities = np.repeat(np.arange(IDENTITIES), 2)
    named = np.isin(gallery_identities, list(hits))
    ranks = Ranks(
        np.where(named, 0, 2),
        np.zeros(len(gallery_identities), np.int64),
        np.array([f"p{identity:02}" for identity in gallery_identities]),
        np.array([f"s{number:03}" for number in range(len(gallery_identities))]),
        100,
    )
    return AttackResult(name, attacker, "full_ref", gallery, ranks)


def only(rows: Sequence[AttributionRow], **wanted: str) -> AttributionRow:
    (row,) = (r for r in rows if all(getattr(r, key) == value for key, value in wanted.items()))
    return row


class TestPaired:
    def test_images_that_both_were_tried_on(self) -> None:
        first, second = attack("a", range(10)), attack("b", range(5))
        turned = np.arange(79, 9, -1)
        fewer = Ranks(*(part[turned] for part in second.ranks[:4]), 100)  # type: ignore[index]
        a, b, gallery_identities = paired(
            first, AttackResult("b", "adaptive_contrastive", "full_ref", "x", fewer)
        )
        assert len(a) == len(b) == len(gallery_identities) == 70
        assert (a.sum(), b.sum()) == (10, 0)
        assert gallery_identities[0] == "p05" and gallery_identities[-1] == "p39"

    def test_trainings_are_averaged(self) -> None:
        """One training names people 0 to 9, the other 0 to 29: a rate of one half, not of one
        quarter, beside one of 5 of 40."""
        parts = attack("a", range(10)), attack("a", range(30))
        pooled = pool_ranks([part.ranks for part in parts])
        first = AttackResult("a", "adaptive_contrastive", "full_ref", "source_excluded", pooled)
        a, b, identities = paired(first, attack("b", range(5)))
        assert len(a) == len(b) == len(identities) == 80
        assert (a.mean(), b.mean()) == (0.5, 0.125)
        assert sorted(set(a.tolist())) == [0, 0.5, 1]


class TestAblation:
    GROUPS = (AblationGrid("none", ["canny-0.5", "canny-1.0"], [0.5, 1.0]),)

    def test_shares_by_hand(self) -> None:
        attacked = [
            attack("none", [0]),
            attack("canny-0.5", range(8)),
            attack("canny-1.0", range(20)),
        ]
        rows = ablation_rows(attacked, self.GROUPS, SETTINGS)
        assert len(rows) == 3 + 2 + 2 + 2
        assert [r.value for r in rows if r.measure == "rank_1"] == [1 / 40, 8 / 40, 20 / 40]
        whole = only(rows, anonymizer="canny-1.0", measure="carried_share")
        assert whole.value == pytest.approx(19 / 20)
        assert whole.low < whole.value < whole.high <= 1
        assert whole.compared_with == "none" and whole.n_probes == 80
        assert only(rows, anonymizer="canny-0.5", measure="carried_share").value == 0.875
        difference = only(rows, anonymizer="canny-1.0", question="ablation",
                          measure="rank_1_difference")  # fmt: skip
        a, b, gallery_identities = paired(attacked[2], attacked[0])
        expected = paired_bootstrap(
            a, b, gallery_identities, confidence_level=0.95, n_bootstrap=400, seed=0
        )
        assert (difference.value, difference.low, difference.high) == expected
        steps = [row for row in rows if row.question == "scale"]
        assert [(row.compared_with, row.anonymizer) for row in steps] == [
            ("none", "canny-0.5"),
            ("canny-0.5", "canny-1.0"),
        ]
        assert [row.value for row in steps] == pytest.approx([7 / 40, 12 / 40])

    def test_nothing_is_carried_where_nothing_is_found(self) -> None:
        attacked = [attack("none", [0]), attack("canny-0.5", []), attack("canny-1.0", [0])]
        rows = ablation_rows(attacked, self.GROUPS, SETTINGS)
        shares = [r for r in rows if r.measure == "carried_share"]
        assert [r.anonymizer for r in shares] == ["canny-0.5", "canny-1.0"]
        assert all(math.isnan(r.value) for r in shares)
        assert shares[1].reason == (
            "not significantly above chance: adaptive_contrastive on canny-1.0"
        )
        table = attribution_table(rows)
        assert table["value"].null_count == table["ci_low"].null_count == 2
        assert table["reason"].null_count == len(rows) - 2

    def test_without_a_control_only_the_steps(self) -> None:
        groups = [AblationGrid(None, ["canny-0.5", "canny-1.0"], [0.5, 1.0])]
        rows = ablation_rows(
            [attack("canny-1.0", range(9)), attack("canny-0.5", range(4))], groups, SETTINGS
        )
        assert [(r.question, r.measure) for r in rows] == [
            ("ablation", "rank_1"),
            ("ablation", "rank_1"),
            ("scale", "rank_1_difference"),
        ]

    def test_attackers_are_not_mixed(self) -> None:
        attacked = [attack("none", [0]), attack("canny-1.0", range(20), "condition_only")]
        rows = ablation_rows(attacked, self.GROUPS, SETTINGS)
        assert {row.measure for row in rows} == {"rank_1"}


class TestScaleStatements:
    @pytest.mark.parametrize(
        ("hits", "sentence"),
        [
            ((1, 12, 30), "rises in 2 steps of control scale, significantly in each"),
            (
                (1, 20, 20),
                "never falls significantly in 2 steps of control scale, and rises "
                "significantly in 1",
            ),
            ((1, 30, 10), "it falls significantly in 1 of 2 steps"),
            ((1, 2, 2), "changes significantly in none of 2 steps"),
        ],
    )
    def test_course(self, hits: tuple[int, int, int], sentence: str) -> None:
        names = ("none", "canny-0.5", "canny-1.0")
        attacked = [attack(name, range(n)) for name, n in zip(names, hits, strict=True)]
        rows = ablation_rows(attacked, TestAblation.GROUPS, SETTINGS)
        (text,) = scale_statements(rows, TestAblation.GROUPS)
        assert text.startswith("none to canny-1.0, adaptive_contrastive, source excluded: ")
        assert sentence in text

    def test_a_single_step_is_no_course(self) -> None:
        rows = ablation_rows(
            [attack("none", [0]), attack("canny-1.0", range(9))], TestAblation.GROUPS, SETTINGS
        )
        assert scale_statements(rows, TestAblation.GROUPS) == []


class TestProxy:
    def test_ratio_by_hand(self) -> None:
        attacked = [
            attack("canny", range(20)),
            attack("canny", range(10), "condition_only"),
            attack("canny", range(5, 15), "condition_only_distilled"),
            attack("blur", range(5), "condition_only"),
            attack("blur", range(5)),
        ]
        (row,) = proxy_rows(attacked, ["canny"], SETTINGS)
        assert (row.attacker, row.compared_with, row.value) == (
            "condition_only",
            "adaptive_contrastive",
            0.5,
        )
        assert 0 < row.low < 0.5 < row.high < 1
        attacked.append(attack("canny", range(5, 13), "adaptive_distilled"))
        rows = proxy_rows(attacked, ["canny"], SETTINGS)
        assert [row.value for row in rows] == [0.5, 1.25]

    @pytest.mark.parametrize(("adaptive", "proxy"), [(0, 20), (20, 0), (1, 20), (20, 1)])
    def test_an_attack_at_chance_gives_no_ratio(self, adaptive: int, proxy: int) -> None:
        attacked = [
            attack("canny", range(adaptive)),
            attack("canny", range(proxy), "condition_only"),
        ]
        (row,) = proxy_rows(attacked, ["canny"], SETTINGS)
        blind = "adaptive_contrastive" if adaptive < proxy else "condition_only"
        assert math.isnan(row.value)
        assert row.reason == f"not significantly above chance: {blind} on canny"


def test_regions_become_subsets() -> None:
    (row,) = region_rows([attack("canny-1.0 region=face", range(10))], SETTINGS)
    assert (row.anonymizer, row.subset, row.value) == ("canny-1.0", "region=face", 0.25)
    whole = rate_row("ablation", attack("canny-1.0", range(10)), SETTINGS)
    assert (row.low, row.high) == (whole.low, whole.high) and row.chance == pytest.approx(0.01)
    assert whole.subset == "all"


def swap(condition: int, start: int, gallery: str = "source_excluded", name: str = "canny") -> Swap:
    """40 pairs of people with two images each: first those named by condition, then by start."""
    pairs = np.repeat(np.arange(IDENTITIES), 2)
    return Swap(
        name,
        "adaptive_contrastive",
        gallery,
        (pairs < condition).astype(float),
        ((pairs >= condition) & (pairs < condition + start)).astype(float),
        np.array([f"p{pair:02}" for pair in pairs]),
        100,
    )


class TestSwap:
    def test_shares_by_hand(self) -> None:
        rows = swap_rows(swap(12, 4), SETTINGS)
        values = {row.measure: row.value for row in rows}
        assert values == pytest.approx(
            {
                "rank_1_condition": 0.3,
                "rank_1_start": 0.1,
                "rank_1_either": 0.4,
                "condition_share": 0.29 / (0.29 + 0.09),
            }
        )
        share = only(rows, measure="condition_share")
        assert 0 < share.low < share.value < share.high <= 1
        assert (share.chance, share.n_probes) == (None, 80)
        assert only(rows, measure="rank_1_either").chance == 0.02

    @pytest.mark.parametrize(("condition", "start", "value"), [(12, 0, 1.0), (0, 12, 0.0)])
    def test_all_of_one_kind_still_has_a_width(
        self, condition: int, start: int, value: float
    ) -> None:
        share = only(swap_rows(swap(condition, start), SETTINGS), measure="condition_share")
        assert share.value == value
        assert share.high - share.low > 0.05

    def test_no_share_by_chance(self) -> None:
        for null in (swap(0, 0), swap(1, 1)):
            share = only(swap_rows(null, SETTINGS), measure="condition_share")
            assert math.isnan(share.value)
            assert share.reason == "not significantly above chance: adaptive_contrastive on canny"


class TestHeadline:
    def test_the_swap_that_says_most(self) -> None:
        swaps: list[Any] = [
            swap(12, 4),
            swap(20, 0, "source_included"),
            swap(3, 3, name="depth"),
            swap(40, 0, name="other", gallery="source_included"),
        ]
        text = attribution_headline(
            [row for pair_swap in swaps for row in swap_rows(pair_swap, SETTINGS)]
        )
        assert text.startswith("76.3 % [")
        assert "of the leak is carried by the condition" in text
        assert "adaptive_contrastive identifies the condition's person in 30.0 %" in text
        assert "starting image's in 10.0 %" in text and "(canny, source excluded;" in text

    def test_the_ablation_where_no_swap_is_above_guessing(self) -> None:
        attacked = [attack("none", [0]), attack("canny-1.0", range(20))]
        rows = swap_rows(swap(1, 0), SETTINGS)
        rows += ablation_rows(attacked, TestAblation.GROUPS, SETTINGS)
        text = attribution_headline(rows)
        assert text.startswith("95.0 % [") and "than in canny-1.0 (source excluded)" in text

    def test_nothing_to_tell(self) -> None:
        attacked = [attack("none", [0]), attack("canny-1.0", [1])]
        rows = swap_rows(swap(1, 0), SETTINGS)
        rows += ablation_rows(attacked, TestAblation.GROUPS, SETTINGS)
        assert attribution_headline(rows).startswith("What carries the leak cannot be told")
        assert attribution_headline([]).startswith("What carries the leak cannot be told")
