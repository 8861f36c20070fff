from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cldmray.attackers.condition_match import ConditionMatch
from cldmray.attackers.score_fusion import ScoreFusion
from cldmray.config.audit import AuditSettings
from cldmray.faces.records import embeddings_schema
from cldmray.pipelines.attack_runner import AttackResults, Attempt, combine

IDENTITIES = 24
SETTINGS = AuditSettings(protocols=["full_ref"], galleries=["source_excluded", "source_included"])


def embeddings(clarity: float, first: int, seed: int) -> pa.Table:
    """Three images a person around a centre, and blurred images that show so much of it."""
    random = np.random.default_rng(seed)
    rows = []
    for identity in range(first, first + IDENTITIES):
        centre = random.normal(size=16)
        for image in range(3):
            for view, share in (("original", 3.0), ("blur", clarity)):
                vector = share * centre + random.normal(size=16)
                vector /= np.linalg.norm(vector)
                name = f"{identity:03d}"
                rows.append(
                    {
                        "sample_id": f"{name}-{image}",
                        "identity": name,
                        "view": view,
                        "embedding": vector.astype(np.float32),
                    }
                )
    return pa.Table.from_pylist(rows, embeddings_schema(16))


def part(name: str, clarity: float, seeds: tuple[int, ...]) -> Attempt:
    evaluated = [embeddings(clarity, 0, seed) for seed in seeds]
    originals = [embeddings(clarity, IDENTITIES, 100 + seed) for seed in seeds]
    return attempt(name, evaluated, originals)


def attempt(name: str, evaluated: list[pa.Table], validation: list[pa.Table]) -> Attempt:
    unused: Any = None
    attacker = ConditionMatch(label=name)
    return Attempt(name, attacker, ["blur"], [None], evaluated, validation, unused)


def fuse(fusion: ScoreFusion, parts: list[Attempt]) -> AttackResults:
    return combine(fusion, parts, "blur", SETTINGS)


PAIR = "blur", "score_fusion"


def test_two_that_know_something_name_more_together() -> None:
    parts = [part("first", 0.5, (1,)), part("second", 0.5, (2,))]
    results = fuse(ScoreFusion(), parts)
    assert results.notes == []
    assert [(attack.attacker, attack.gallery) for attack in results.attacks] == [
        ("score_fusion", "source_excluded"),
        ("score_fusion", "source_included"),
    ]
    alone = [fuse(ScoreFusion(), [part, part]).attacks[0].rank_1.mean() for part in parts]
    assert results.attacks[0].rank_1.mean() > max(alone) + 0.05
    assert set(results.weights[PAIR]) == {
        f"full_ref/{gallery}/{name}"
        for gallery in ("source_excluded", "source_included")
        for name in ("first", "second")
    }


def test_who_knows_nothing_hardly_counts() -> None:
    parts = [part("knows", 1.5, (1,)), part("guesses", 0.0, (2,))]
    weights = fuse(ScoreFusion(), parts).weights[PAIR]
    assert (
        weights["full_ref/source_excluded/guesses"]
        < 0.3 * weights["full_ref/source_excluded/knows"]
    )


def test_every_training_is_a_part() -> None:
    parts = [part("twice", 0.5, (1, 2)), part("once", 0.5, (3,))]
    weights = fuse(ScoreFusion(), parts).weights[PAIR]
    assert weights["full_ref/source_excluded/twice"] > weights["full_ref/source_excluded/once"]


def test_evaluated_people_do_not_enter_the_rule() -> None:
    honest = [part("first", 0.5, (1,)), part("second", 0.5, (2,))]
    other = [
        replace(item, embeddings=[embeddings(0.0, 0, 50 + place)])
        for place, item in enumerate(honest)
    ]
    assert fuse(ScoreFusion(), honest).weights == fuse(ScoreFusion(), other).weights


def test_too_few_validation_people_are_reported() -> None:
    parts = [part("first", 0.5, (1,)), part("second", 0.5, (2,))]
    results = fuse(ScoreFusion(min_identities=IDENTITIES + 1), parts)
    assert (results.attacks, results.weights) == ([], {PAIR: {}})
    (note,) = results.notes
    assert note.startswith(
        "score_fusion was not run against blur in Full-Ref, source excluded: 24 valid"
    )
    assert f"fusion.min_identities asks for {IDENTITIES + 1}" in note


@pytest.mark.parametrize("training", [1, 2])
def test_several_trainings_keep_their_own_rates(training: int) -> None:
    parts = [part("first", 1.0, tuple(range(training))), part("second", 1.0, (9,))]
    attacks = fuse(ScoreFusion(), parts).attacks
    assert len(attacks[0].ranks.n_higher) == 3 * IDENTITIES, "a fusion is one attacker"


def test_parts_that_tell_nothing_are_reported() -> None:
    evaluated = embeddings(0.5, 0, 1)
    vectors = np.zeros((len(evaluated), 16), np.float32)
    vectors[:, 0] = 1.0
    column = pa.FixedSizeListArray.from_arrays(vectors.ravel(), 16)
    originals = embeddings(0.5, IDENTITIES, 2)
    blind = originals.set_column(3, originals.schema.field("embedding"), column)
    parts = [attempt(name, [evaluated], [blind]) for name in ("first", "second")]
    results = fuse(ScoreFusion(), parts)
    assert (results.attacks, results.weights) == ([], {PAIR: {}})
    (note,) = results.notes
    assert "no attacker identifies validation identities better than chance" in note
