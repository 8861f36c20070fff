"""The most exposed identities, counted by hand."""

import numpy as np
import pytest
from scipy import stats

from cldmray.evaluation.by_identity.exposed import exposed, image_success
from cldmray.evaluation.identification import AttackResult
from cldmray.evaluation.settings import EvaluationSettings
from cldmray.gallery.protocols import EmbeddingSet
from cldmray.gallery.ranking import Ranks, pool_ranks
from cldmray.gallery.scores import EmbeddingScores
from cldmray.results.exposed import EXPOSED

SETTINGS = EvaluationSettings(confidence_level=0.9)
SAMPLES = ["a1", "a2", "b1", "b2", "c1"]


def ranks(n_higher: list[int]) -> Ranks:
    names = np.array([sample[0] for sample in SAMPLES])
    return Ranks(np.array(n_higher), np.zeros(5, np.int64), names, np.array(SAMPLES), 20)


def attack(attacker: str, n_higher: list[int], **where: str) -> AttackResult:
    place = {"protocol": "full_ref", "gallery": "source_excluded"} | where
    return AttackResult("blur", attacker, place["protocol"], place["gallery"], ranks(n_higher))


ATTACKS = [
    attack("strong", [0, 0, 3, 0, 7]),
    attack("weak", [0, 1, 1, 1, 1]),
    attack("weak", [1, 1, 1, 1, 0], protocol="few_ref"),
    attack("weak", [1, 1, 1, 1, 1], gallery="source_included"),
]


def test_images_by_hand() -> None:
    images = exposed(ATTACKS, SETTINGS).images
    assert images.schema == EXPOSED
    rows = {(row["protocol"], row["gallery"], row["sample_id"]): row for row in images.to_pylist()}
    assert len(rows) == 3 * 5
    first = rows["full_ref", "source_excluded", "a1"]
    assert (first["identity"], first["n_attackers"], first["n_identified"]) == ("a", 2, 2)
    assert first["attackers"] == ["strong", "weak"]
    assert rows["full_ref", "source_excluded", "b1"]["n_identified"] == 0
    assert rows["few_ref", "source_excluded", "c1"]["attackers"] == ["weak"]
    assert rows["few_ref", "source_excluded", "c1"]["n_attackers"] == 1


def test_identities_by_hand() -> None:
    identities = exposed(ATTACKS, SETTINGS).identities
    assert len(identities) == 2 * 3
    assert identities[0].identity == "a"
    by_name = {each.identity: each for each in identities if each.gallery == "source_excluded"}
    worst = by_name["a"]
    assert (worst.attacker, worst.protocol) == ("strong", "full_ref")
    assert (worst.n_images, worst.n_identified, worst.share) == (2, 2, 1)
    assert (worst.n_attackers, worst.n_identified_by_any) == (2, 2)
    # Three identities share an error of 10 %: each bound errs in 1 of 60.
    assert worst.ci_low == pytest.approx(stats.beta.ppf(0.1 / 3 / 2, 2, 1))
    assert worst.ci_high == 1
    assert worst.is_significant and worst.chance == 1 / 20
    assert (by_name["b"].n_identified, by_name["b"].n_identified_by_any) == (1, 1)
    assert not by_name["b"].is_significant
    assert (by_name["c"].n_identified, by_name["c"].n_attackers) == (0, 1)


def test_trainings_are_averaged_by_image() -> None:
    pooled = pool_ranks([ranks([0, 0, 3, 0, 7]), ranks([0, 4, 0, 0, 7]), ranks([0, 4, 3, 0, 7])])
    both = AttackResult("blur", "strong", "full_ref", "source_excluded", pooled)
    success = image_success(both)
    assert success.sample_ids.tolist() == SAMPLES
    assert success.success == pytest.approx([1, 1 / 3, 1 / 3, 1, 0])
    (worst, *_) = exposed([both], SETTINGS).identities
    assert (worst.n_images, worst.n_identified) == (2, pytest.approx(4 / 3))


def test_a_person_whom_the_attacker_always_names_is_not_exposed_by_that() -> None:
    """Every image is taken for ann: hers are identified, and her chance is 1."""
    samples = np.array([f"s{number:02d}" for number in range(40)])
    names = np.repeat([f"p{number}" for number in range(5)], 8)
    ann = np.array([[1.0, 0.0]], np.float32)
    probes = EmbeddingSet(samples, names, np.repeat(ann, 40, axis=0))
    references = EmbeddingSet(samples, names, np.where(names[:, None] == "p0", ann, ann[:, ::-1]))
    scores = EmbeddingScores(probes, references, "full_ref", "source_included")
    attack = AttackResult.of("blur", "strong", "full_ref", "source_included", scores)
    (worst, *_) = exposed([attack], SETTINGS).identities
    assert (worst.identity, worst.share, worst.chance) == ("p0", 1, 1)
    assert not worst.is_significant


def test_luck_among_many_is_no_exposure() -> None:
    """Of 200 people at chance some are identified once; none of them significantly."""
    random = np.random.default_rng(0)
    n_higher = random.integers(0, 200, 1000)
    names = np.repeat([f"p{number:03d}" for number in range(200)], 5)
    samples = np.array([f"s{number:04d}" for number in range(1000)])
    null = Ranks(n_higher, np.zeros(1000, np.int64), names, samples, 200)
    identities = exposed(
        [AttackResult("blur", "strong", "full_ref", "source_excluded", null)], EvaluationSettings()
    ).identities
    assert identities[0].n_identified > 0
    assert not any(each.is_significant for each in identities)
