"""From embeddings to rows, curves and the strongest attack, by hand-computed examples."""

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from cldmray.arrays import Interval
from cldmray.errors import BadInputError
from cldmray.evaluation.decision import supported_k
from cldmray.evaluation.identification import (
    AttackResult,
    _rank_1_intervals,
    attacks,
    clean_rank_1,
    curve,
    excess_over_chance,
    strongest,
    view_of,
)
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.faces.records import embeddings_schema
from cldmray.gallery import scores as scores_module
from cldmray.gallery.ranking import Ranks, rank_scores
from cldmray.gallery.scores import ScoreBlock, Scores
from cldmray.metrics.rates import rate_interval
from cldmray.results.audit import AttackRate

SETTINGS = EvaluationSettings(n_bootstrap=500)
IDENTITIES = ["ann", "bob", "cat"]


def unit(degrees: float) -> list[float]:
    angle = np.deg2rad(degrees)
    return [float(np.cos(angle)), float(np.sin(angle))]


def embeddings(*views: tuple[str, dict[str, float]]) -> pa.Table:
    """Two-dimensional embeddings: for each view, the angle of each sample ``<person>/<image>``."""
    rows = [
        {
            "sample_id": sample,
            "identity": sample.split("/")[0],
            "view": view,
            "embedding": unit(degrees),
        }
        for view, angles in views
        for sample, degrees in angles.items()
    ]
    return pa.Table.from_pylist(rows[::-1], embeddings_schema(2))


IMAGES = {"ann/1": 0, "ann/2": 10, "bob/1": 90, "bob/2": 100, "cat/1": 180, "cat/2": 190}
BLURRED = {"ann/1": 0, "ann/2": 100, "bob/1": 95, "bob/2": 120, "cat/1": 90, "cat/2": 150}


@pytest.fixture
def table() -> pa.Table:
    return embeddings(("original", IMAGES), ("blur", BLURRED))


def attack(
    n_higher: list[int], n_tied: list[int], identities: list[str], size: int
) -> AttackResult:
    ranks = Ranks(
        np.array(n_higher),
        np.array(n_tied),
        np.array(identities),
        np.array([f"{i:016x}" for i in range(len(n_higher))]),
        size,
    )
    return AttackResult("blur", "adaptive_contrastive", "full_ref", "source_excluded", ranks)


def many(
    rate: float, gallery_identities: int = 40, name: str = "adaptive_contrastive"
) -> AttackResult:
    """Two probes a person; the first ``rate`` of the people are named, the others come last."""
    n_higher = [
        0 if identity < rate * gallery_identities else gallery_identities - 1
        for identity in range(gallery_identities)
    ] * 2
    identities = [f"p{identity:02d}" for identity in range(gallery_identities)] * 2
    return replace(
        attack(n_higher, [0] * len(n_higher), identities, gallery_identities), attacker=name
    )


class TestViewOf:
    def test_rows_are_chosen_and_sorted(self, table: pa.Table) -> None:
        outcome = view_of(table, "blur")
        assert outcome.sample_ids.tolist() == sorted(BLURRED)
        assert outcome.identities.tolist() == [name for name in IDENTITIES for _ in range(2)]
        np.testing.assert_allclose(outcome.vectors, [unit(BLURRED[s]) for s in sorted(BLURRED)])
        assert outcome.vectors.dtype == np.float32

    def test_chunks_make_no_difference(self, table: pa.Table) -> None:
        chunked = pa.concat_tables([table[:5], table[5:6], table[6:6], table[6:]])
        np.testing.assert_array_equal(
            view_of(chunked, "original").vectors, view_of(table, "original").vectors
        )

    def test_an_absent_view_is_empty(self, table: pa.Table) -> None:
        assert view_of(table, "no_op").vectors.shape == (0, 2)


class TestAttacks:
    def test_every_protocol_and_gallery(self, table: pa.Table) -> None:
        outcome = attacks([table], "blur", "adaptive_contrastive", SETTINGS, "original")
        assert [(attempt.protocol, attempt.gallery) for attempt in outcome] == [
            (protocol, gallery)
            for protocol in ("full_ref", "few_ref", "single_ref")
            for gallery in ("source_excluded", "source_included", "anonymized_only")
        ]
        assert {(attempt.anonymizer, attempt.attacker) for attempt in outcome} == {
            ("blur", "adaptive_contrastive")
        }

    def test_ranks_by_hand(self, table: pa.Table) -> None:
        settings = replace(SETTINGS, protocols=["full_ref"], galleries=["source_excluded"])
        (outcome,) = attacks([table], "blur", "adaptive_contrastive", settings, "original")
        assert outcome.ranks.sample_ids.tolist() == sorted(BLURRED)
        # ann/2 at 100 degrees stands 0 from bob, 80 from cat and 100 from ann; cat/1 at 90 stands
        # 0 from bob, 80 from ann and 100 from cat; cat/2 at 150 stands 30 from cat.
        assert outcome.ranks.n_higher.tolist() == [0, 2, 0, 0, 2, 0]
        assert outcome.ranks.n_tied.tolist() == [0] * 6
        assert outcome.rank_1.tolist() == [1, 0, 1, 1, 0, 1]

    def test_anonymized_only_by_hand(self, table: pa.Table) -> None:
        settings = replace(SETTINGS, protocols=["full_ref"], galleries=["anonymized_only"])
        (outcome,) = attacks([table], "blur", "adaptive_contrastive", settings, "original")
        # Blurred images stand at ann 0, 100; bob 95, 120; cat 90, 150 degrees. ann/1 stands 100
        # from ann/2, 95 from bob, 90 from cat; ann/2 100 from ann/1, 5 from bob, 10 from cat;
        # bob/1 25 from bob/2, 5 from ann and cat; bob/2 25 from bob/1, 20 from ann, 30 from cat;
        # cat/1 60 from cat/2, 10 from ann, 5 from bob; cat/2 60 from cat/1, 30 from bob, 50 ann.
        assert outcome.ranks.sample_ids.tolist() == sorted(BLURRED)
        assert outcome.ranks.n_higher.tolist() == [2, 2, 2, 1, 2, 2]
        assert outcome.ranks.n_tied.tolist() == [0] * 6
        assert outcome.ranks.gallery_size == 3

    def test_scores_and_ranks_agree(self, table: pa.Table) -> None:
        for outcome in attacks([table], "blur", "adaptive_contrastive", SETTINGS, "original"):
            (scores,) = outcome.scores
            for column, again in zip(rank_scores(scores), outcome.ranks, strict=True):
                np.testing.assert_array_equal(column, again)

    def test_several_trainings_are_pooled(self, table: pa.Table) -> None:
        settings = replace(SETTINGS, protocols=["full_ref"], galleries=["source_excluded"])
        (once,) = attacks([table], "blur", "adaptive_contrastive", settings, "original")
        twice = AttackResult.of(
            "blur", "adaptive_contrastive", "full_ref", "source_excluded", *once.scores * 2
        )
        assert twice.ranks.n_higher.tolist() == once.ranks.n_higher.tolist() * 2
        assert twice.ranks.gallery_size == 3
        assert twice.rank_1.mean() == once.rank_1.mean()
        (again,) = attacks([table, table], "blur", "adaptive_contrastive", settings, "original")
        assert again.ranks.n_higher.tolist() == twice.ranks.n_higher.tolist()
        assert len(again.scores) == 2

    def test_shards_of_large_scores_change_no_bit(
        self, table: pa.Table, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = attacks([table, table], "blur", "pretrained", SETTINGS, "original")
        calls: list[int] = []

        def elsewhere(function: Any, values: Iterable[Any]) -> Iterator[Any]:
            for value in values:
                calls.append(1)
                yield pickle.loads(pickle.dumps(function(pickle.loads(pickle.dumps(value)))))

        monkeypatch.setattr(scores_module, "KEPT_CELLS", 0)
        monkeypatch.setattr(scores_module, "CELLS", 4 * 6)
        monkeypatch.setattr(scores_module, "LEAST_PROBES", 1)
        sharded = attacks(
            [table, table], "blur", "pretrained", SETTINGS, "original", apply=elsewhere
        )
        # Two trainings, originals and anonymized images as references, 6 probes in blocks of 4.
        assert len(calls) == 2 * 2 * 2
        for attack, other in zip(sharded, whole, strict=True):
            assert (attack.protocol, attack.gallery) == (other.protocol, other.gallery)
            for own, its in zip(attack.ranks, other.ranks, strict=True):
                np.testing.assert_array_equal(own, its)
            assert attack.chance_by_shards is not None and other.chance_by_shards is None
            for own, its in zip(attack.measured_chance, other.measured_chance, strict=True):
                np.testing.assert_array_equal(own, its)

    def test_an_anonymizer_without_images_is_named(self, table: pa.Table) -> None:
        with pytest.raises(BadInputError, match="^mine: there is no image of the people"):
            attacks([table], "mine", "adaptive_contrastive", SETTINGS, "original")


def test_clean_rank_1() -> None:
    assert clean_rank_1(embeddings(("original", IMAGES)), "original") == 1.0
    confused = {**IMAGES, "bob/2": 20}
    # ann/2 finds bob/2 as near as ann/1: half; bob/2 finds ann/2 first: none; the others their own.
    assert clean_rank_1(embeddings(("original", confused)), "original") == pytest.approx(4.5 / 6)


def test_curve() -> None:
    attempt = attack([0, 0, 3, 6], [0, 1, 0, 0], ["ann", "ann", "bob", "cat"], 8)
    outcome = curve(attempt)
    assert outcome.ranks == list(range(1, 9))
    assert outcome.rates == pytest.approx([0.375, 0.5, 0.5, 0.75, 0.75, 0.75, 1.0, 1.0])
    assert outcome.chance == pytest.approx([rank / 8 for rank in range(1, 9)])
    names = (outcome.anonymizer, outcome.attacker, outcome.protocol, outcome.gallery)
    assert names == ("blur", "adaptive_contrastive", "full_ref", "source_excluded")


class TestStrongest:
    def test_the_highest_lower_bound_is_chosen(self) -> None:
        attempts = [many(0.3, name="clean_trained"), many(0.6), many(0.1, name="condition_only")]
        outcome = strongest(attempts, SETTINGS, "")
        assert (outcome.anonymizer, outcome.attacker, outcome.risk) == (
            "blur",
            "adaptive_contrastive",
            0.6,
        )
        assert (outcome.chance, outcome.gallery_size) == (pytest.approx(1 / 40), 40)
        assert outcome.finding == "leak"
        assert outcome.k_not_rejected == int(1 / outcome.low)

    def test_many_sure_probes_beat_few_lucky_ones(self) -> None:
        lucky = replace(attack([0], [0], IDENTITIES[:1], 40), attacker="lucky")
        assert lucky.rank_1.mean() > many(0.6).rank_1.mean()
        assert strongest([lucky, many(0.6)], SETTINGS, "").attacker == "adaptive_contrastive"

    def test_more_attacks_widen_the_bounds(self) -> None:
        attempts = [many(0.5), *(many(0.1, name=f"weak{i}") for i in range(9))]
        alone, among = strongest(attempts[:1], SETTINGS, ""), strongest(attempts, SETTINGS, "")
        assert among.attacker == alone.attacker == "adaptive_contrastive"
        assert among.low < alone.low < alone.high < among.high
        assert among.confidence_level == alone.confidence_level == 0.95
        expected = rate_interval(
            attempts[0].rank_1, attempts[0].ranks.identities, confidence_level=0.995
        )
        assert (among.low, among.high) == (expected.low, expected.high)

    def test_attacks_measured_together_have_the_intervals_of_each(self) -> None:
        other = replace(attack([0] * 7, [0] * 7, list("abcdefg"), 40), attacker="other")
        attempts = [many(0.2), other, many(0.4, name="condition_only")]
        together = _rank_1_intervals(attempts, 0.9)
        assert together == [
            rate_interval(attempt.rank_1, attempt.ranks.identities, confidence_level=0.9)
            for attempt in attempts
        ]

    def test_guessing_is_no_leak(self) -> None:
        nobody = many(0.0)
        outcome = strongest([nobody], SETTINGS, "")
        assert (outcome.risk, outcome.low, outcome.k_not_rejected) == (0.0, 0.0, 40)
        assert outcome.finding == "no_leak_found"

    def test_bounds_of_other_attacks_are_kept(self) -> None:
        lucky = replace(attack([0], [0], IDENTITIES[:1], 40), attacker="lucky")
        outcome = strongest([lucky, many(0.6)], SETTINGS, "")
        assert outcome.tested_attack == AttackRate(
            "adaptive_contrastive", "full_ref", "source_excluded",
            outcome.risk, outcome.low, outcome.high, outcome.chance, outcome.excess,
        )  # fmt: skip
        assert outcome.cross_image == AttackRate(
            "lucky", "full_ref", "source_excluded", *outcome.cross_image[3:]
        )
        assert outcome.highest_upper_bound == outcome.simultaneous_upper_bound == 1.0 > outcome.high

    def test_claims_are_tested_against_the_highest_lower_bound(self) -> None:
        spread = many(0.7, gallery_identities=10, name="spread")
        spread = replace(spread, ranks=spread.ranks._replace(gallery_size=100))
        narrow = many(0.6, gallery_identities=100, name="narrow")
        outcome = strongest([spread, narrow], SETTINGS, "")
        assert (outcome.attacker, outcome.risk) == ("spread", 0.7)
        assert (outcome.tested_attack.attacker, outcome.tested_attack.value) == ("narrow", 0.6)
        assert outcome.tested_attack.low > outcome.low
        assert outcome.k_not_rejected == int(1 / outcome.tested_attack.low)

    def test_claims_are_not_tested_against_an_attack_that_guesses(self) -> None:
        guess, leak = many(0.6, name="guess"), many(0.3, name="leak")
        excess = [Interval(0.05, -0.01, 0.1), Interval(0.2, 0.1, 0.3)]
        outcome = strongest([guess, leak], SETTINGS, "", excess)
        assert (outcome.attacker, outcome.tested_attack.attacker) == ("leak", "leak")
        assert outcome.k_not_rejected == int(1 / outcome.low)
        assert outcome.simultaneous_upper_bound > outcome.high

    def test_the_note_passes(self) -> None:
        outcome = strongest([many(0.0)], SETTINGS, "attacker too weak")
        assert outcome.note == "attacker too weak"
        assert outcome.finding == "inconclusive"

    @pytest.mark.parametrize("n_hits", [1, 2])
    def test_a_hit_more_hardly_changes_the_k_that_is_supported(self, n_hits: int) -> None:
        def spread(hits: int) -> AttackResult:
            ranks = [0] * hits + [5] * (600 - hits)
            identities = [f"p{image % 100:03}" for image in range(600)]
            return attack(ranks, [0] * 600, identities, 100)

        none, some = (
            supported_k(strongest([spread(hits)] * 36, SETTINGS, "")) for hits in (0, n_hits)
        )
        assert none == some == 22


class Named(Scores):
    """Scores of probes that each name one candidate out of p0, p1, ..."""

    def __init__(self, own: list[int], named: list[int], candidates: int) -> None:
        self.gallery_identities = np.array([f"p{column}" for column in range(candidates)])
        self.mated_columns, self.named = np.array(own), np.array(named)
        self.identities = self.gallery_identities[self.mated_columns]
        self.sample_ids = np.array([f"{row:016x}" for row in range(len(own))])

    def blocks(self) -> Iterator[ScoreBlock]:
        rows = np.arange(len(self.named))
        yield ScoreBlock(rows, np.float32(self.named[:, None] == np.arange(6)))


class TestMeasuredChance:
    """p0 has 15 of 20 probes; the others one each."""

    OWN: ClassVar = [0] * 15 + [1, 2, 3, 4, 5]

    def outcome(self, named: list[int], *more: Named) -> AttackResult:
        scores = Named(self.OWN, named, 6), *more
        return AttackResult.of("blur", "mine", "full_ref", "source_excluded", *scores)

    def test_naming_the_well_known_is_no_leak(self) -> None:
        """It identifies 75 % of the images, where 1/N is 17 %: its chance is 75 % as well."""
        blind = self.outcome([0] * 20)
        assert blind.chance == pytest.approx(0.75) == blind.rank_1.mean()
        outcome = strongest([blind], SETTINGS, "")
        assert outcome.finding == "no_leak_found" and not outcome.strongest_attack.above_chance

    def test_identifying_everybody_is_a_leak(self) -> None:
        """Chance: 15 of 20 probes name p0, who has 15 of 20; five name one with 1 of 20."""
        outcome = strongest([self.outcome(self.OWN)], SETTINGS, "")
        assert outcome.chance == pytest.approx(0.75**2 + 0.25 / 20)
        assert outcome.excess is not None
        assert outcome.excess.value == pytest.approx(1 - outcome.chance)

    def test_trainings_count_alike(self) -> None:
        blind, perfect = [0] * 20, Named(self.OWN, self.OWN, 6)
        outcome = self.outcome(blind, perfect)
        assert outcome.chance == pytest.approx((0.75 + 0.575) / 2)
        assert outcome.measured_chance.excess.mean() == pytest.approx(0.425 / 2)

    def test_bounds_hold_for_all_attacks_of_an_audit(self) -> None:
        attempts = [many(0.3), *(many(0.025, name=f"weak{i}") for i in range(9))]
        (alone,), among = (excess_over_chance(some, SETTINGS) for some in (attempts[:1], attempts))
        assert among[0].value == alone.value and among[0].low <= alone.low
        outcome = strongest(attempts[:1], SETTINGS, "", among[:1])
        assert outcome.excess == among[0]


def test_distractors_are_ranked_and_never_probed() -> None:
    """Two people at 0 and 90 degrees; a stranger at 40 is nearer to the probe at 30 than ann is."""

    def at(degrees: float) -> list[float]:
        return [float(np.cos(np.deg2rad(degrees))), float(np.sin(np.deg2rad(degrees)))]

    rows = [
        ("a1", "ann", "original", 0), ("a2", "ann", "original", 10),
        ("b1", "bob", "original", 90), ("b2", "bob", "original", 100),
        ("a1", "ann", "blur", 30), ("b1", "bob", "blur", 95), ("b2", "bob", "blur", 95),
    ]  # fmt: skip
    stranger = [("c1", "cat", "original", 40)]
    ranks = []
    for table in (rows, rows + stranger):
        names = ("sample_id", "identity", "view", "embedding")
        embeddings = pa.Table.from_pylist(
            [dict(zip(names, (*row[:3], at(row[3])), strict=True)) for row in table],
            embeddings_schema(2),
        )
        settings = EvaluationSettings(protocols=["full_ref"], galleries=["source_excluded"])
        (attack,) = attacks([embeddings], "blur", "pretrained", settings, "original")
        ranks.append(attack.ranks)
    without, beside = ranks
    assert without.n_higher.tolist() == [0, 0, 0] and without.gallery_size == 2
    assert beside.n_higher.tolist() == [1, 0, 0] and beside.gallery_size == 3
    assert beside.sample_ids.tolist() == without.sample_ids.tolist() == ["a1", "b1", "b2"]
