"""Judgement: rates, paired gains and verdicts, from ranks made up by hand."""

from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from cldmray.config.reconstruction import build_reconstruction
from cldmray.errors import BadInputError
from cldmray.evaluation.identification import AttackResult
from cldmray.gallery.ranking import Ranks
from cldmray.pipelines.attack_runner import AttackResults
from cldmray.pipelines.reconstruction_study import ReconstructionStudy
from cldmray.results.reconstruction import ReconstructionRow, ReconstructionVerdict

CONF = Path(__file__).resolve().parents[2] / "conf"
IDENTITIES = 40
NAMED = {"raw": 8, "unet": 20, "unet-shuffled": 2, "mean_face": 1, "nearest_training_face": 4}
"""People, of 40 with one image each, who are named: the first ones."""


def attack(name: str, named: int, gallery: str) -> AttackResult:
    place = np.arange(IDENTITIES)
    ids = np.array([f"p{number:02d}" for number in place])
    n_higher = np.where(place < named, 0, 1)
    ranks = Ranks(n_higher, np.zeros(IDENTITIES, np.int64), ids, ids, IDENTITIES)
    return AttackResult("blur", name, "full_ref", gallery, ranks)


def study(cache_dir: Path) -> ReconstructionStudy:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose(
            "invert", ["anonymizers=[blur]", "audit.n_bootstrap=500", f"cache_dir={cache_dir}"]
        )
    return ReconstructionStudy(build_reconstruction(composed))


def results_of(**named: int) -> AttackResults:
    rates = {key.replace("-", "_"): key for key in NAMED}
    numbers = NAMED | {rates[key]: value for key, value in named.items()}
    attacks = [
        attack(name, count, gallery)
        for name, count in numbers.items()
        for gallery in ("source_excluded", "source_included")
    ]
    return AttackResults(attacks, queries={("blur", name): 9 for name in NAMED if name != "raw"})


def compared(
    subject: ReconstructionStudy, results: AttackResults
) -> tuple[list[ReconstructionRow], list[ReconstructionVerdict]]:
    return subject.compare(results.attacks, results.queries, None)


def test_rates_gains_and_verdict(tmp_path: Path) -> None:
    subject = study(tmp_path)
    rows, results = compared(subject, results_of())
    verdicts = {recovery.gallery: recovery for recovery in results}
    assert list(verdicts) == ["source_excluded", "source_included"]
    mine = verdicts["source_excluded"]
    assert (mine.reconstructor, mine.queries, mine.chance) == ("unet", 9, 1 / IDENTITIES)
    assert (mine.rank_1.value, mine.raw.value) == (0.5, 0.2)
    assert mine.gain_over_raw.value == pytest.approx(0.3)
    assert mine.control == "nearest_training_face"
    gains = {name: gain.value for name, gain in mine.gain_over_controls.items()}
    assert gains == pytest.approx(
        {"mean_face": 19 / 40, "nearest_training_face": 16 / 40, "unet-shuffled": 18 / 40}
    )
    assert mine.verdict == "significantly above all controls"
    rates = {r.reconstructor: r for r in rows if (r.measure, r.gallery) == ("rank_1", mine.gallery)}
    assert {name: row.value for name, row in rates.items()} == {
        name: count / IDENTITIES for name, count in NAMED.items()
    }
    assert {name: row.queries for name, row in rates.items()} == {
        name: 0 if name == "raw" else 9 for name in NAMED
    }
    baselines = [row.compared_with for row in rows if row.measure == "rank_1_gain"]
    assert baselines == ["raw", "mean_face", "nearest_training_face", "unet-shuffled"] * 2


def test_one_control_that_is_not_beaten_is_enough(tmp_path: Path) -> None:
    subject = study(tmp_path)
    _, results = compared(subject, results_of(unet_shuffled=20))
    assert {recovery.verdict for recovery in results} == {"not above all controls"}
    assert results[0].control == "unet-shuffled"


def test_who_is_named_without_it_is_not_recovered(tmp_path: Path) -> None:
    subject = study(tmp_path)
    _, (first, _) = compared(subject, results_of(raw=35))
    assert first.above_controls and first.gain_over_raw.high < 0
    assert first.verdict == "not above the unreconstructed images"


def test_what_learnt_nothing_has_rates_only(tmp_path: Path) -> None:
    subject = study(tmp_path)
    rows, results = compared(subject, AttackResults([attack("raw", 3, "source_excluded")]))
    assert results == []
    assert [(row.reconstructor, row.measure) for row in rows] == [("raw", "rank_1")]


def test_other_probes_are_not_compared(tmp_path: Path) -> None:
    subject = study(tmp_path)
    first, second = attack("unet", 3, "source_excluded"), attack("raw", 3, "source_excluded")
    others = second.ranks._replace(sample_ids=second.ranks.sample_ids[::-1])
    with pytest.raises(BadInputError, match="unet and raw saw different probes"):
        subject.gain(first, AttackResult("blur", "raw", "full_ref", "source_excluded", others))


def test_a_weak_recognizer_is_noted(tmp_path: Path) -> None:
    subject = study(tmp_path)
    (note,) = subject.weakness(AttackResults(clean={("blur", "raw"): 0.5}))
    assert note.startswith("The held-out recognizer, dlib, identifies 50.0 % of clean images")
    assert subject.weakness(AttackResults(clean={("blur", "raw"): 0.95})) == []
