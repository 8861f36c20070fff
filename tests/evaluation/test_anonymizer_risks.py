"""Each kind of attack has its strongest: on images, linkage, on all images of a person."""

import numpy as np
import pytest

from cldmray.evaluation.identification import AttackResult, anonymizer_risks
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.gallery.protocols import EmbeddingSet, Gallery
from cldmray.gallery.scores import EmbeddingScores

SETTINGS = EvaluationSettings(n_bootstrap=100)


def attack(attacker: str, noise: float, gallery: Gallery) -> AttackResult:
    """Six images each of 20 people."""
    random = np.random.default_rng(0)
    identities = np.repeat([f"p{number:02d}" for number in range(20)], 6)
    samples = np.array([f"s{number:03d}" for number in range(120)])
    centres = np.repeat(random.normal(size=(20, 32)), 6, axis=0)

    def view(spread: float) -> EmbeddingSet:
        vectors = centres + spread * random.normal(size=centres.shape)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return EmbeddingSet(samples, identities, unit.astype(np.float32))

    scores = EmbeddingScores(view(noise), view(0.2), "full_ref", gallery)
    return AttackResult.of("blur", attacker, "full_ref", gallery, scores)


def test_each_kind_of_attack_has_a_rate_of_its_own() -> None:
    attacks = [
        attack("weak", 30.0, "source_excluded"),
        attack("strong", 4.0, "source_excluded"),
        attack("unfair", 0.1, "source_included"),
        attack("linking", 0.1, "anonymized_only"),
    ]
    (risk,) = anonymizer_risks(attacks, SETTINGS, {})
    cross_image, same_image, linkage = risk.cross_image, risk.same_image, risk.linkage
    assert cross_image is not None and same_image is not None and linkage is not None
    assert (risk.attacker, same_image.attacker) == ("unfair", "unfair")
    assert (cross_image.attacker, linkage.attacker) == ("strong", "linking")
    assert (cross_image.value, linkage.above_chance) == (attacks[1].rank_1.mean(), True)
    assert risk.n_probes == 120
    pooled = risk.person_level
    assert pooled is not None and (pooled.attacker, pooled.gallery) == ("strong", "source_excluded")
    assert pooled.value > 2 * cross_image.value
    assert attacks[3].albums is None


def test_trainings_make_nobody_more_numerous() -> None:
    once = attack("weak", 4.0, "source_excluded")
    (scores,) = once.scores
    again = AttackResult.of("blur", "weak", "full_ref", "source_excluded", scores, scores, scores)
    (risk,), (same,) = (anonymizer_risks([item], SETTINGS, {}) for item in (once, again))
    assert (risk.low, risk.high) == pytest.approx((same.low, same.high))
    assert risk.n_probes == same.n_probes
    pooled, other = risk.person_level, same.person_level
    assert pooled is not None and other is not None
    assert (pooled.low, pooled.high) == pytest.approx((other.low, other.high))


def test_the_linkage_with_the_highest_lower_bound_is_kept() -> None:
    attacks = [attack("linking", noise, "anonymized_only") for noise in (2.0, 0.1)]
    (risk,) = anonymizer_risks([attack("weak", 30.0, "source_excluded"), *attacks], SETTINGS, {})
    assert risk.tested_linkage == risk.linkage is not None


def test_linkage_alone_is_the_risk() -> None:
    (risk,) = anonymizer_risks([attack("linking", 0.1, "anonymized_only")], SETTINGS, {})
    assert (risk.attacker, risk.finding) == ("linking", "leak")
    assert risk.linkage is None and risk.person_level is None
    assert risk.linking_attacks == (risk.strongest_attack, risk.tested_attack)


def test_ranks_alone_tell_no_person_level() -> None:
    ranks = attack("x", 4.0, "source_excluded").ranks
    bare = AttackResult("blur", "x", "full_ref", "source_excluded", ranks)
    (risk,) = anonymizer_risks([bare], SETTINGS, {"blur": "weak"})
    assert risk.person_level is None


def test_a_note_withholds_what_is_supported() -> None:
    blind = attack("weak", 1e6, "source_excluded")
    (risk,) = anonymizer_risks([blind], SETTINGS, {"blur": "attacker too weak"})
    assert (risk.finding, risk.note, risk.k_supported) == ("inconclusive", "attacker too weak", 1)
