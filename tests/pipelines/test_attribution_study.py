"""Whose conditions are swapped in an audit, and how the images of two people are ranked."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hydra import compose, initialize_config_dir

from cldmray.attackers.base import Attacker
from cldmray.config.attribution import build_attribution
from cldmray.config.audit import AuditConfig, build_audit
from cldmray.engine.map_stages.swap import SWAPPED
from cldmray.errors import BadInputError
from cldmray.evaluation.attribution import Swap
from cldmray.evaluation.identification import AttackResult
from cldmray.faces.records import CONTENT_ID, ORIGINAL, embeddings_schema
from cldmray.gallery.ranking import Ranks
from cldmray.pipelines.attack_runner import AttackResults
from cldmray.pipelines.attribution_study import AttributionAnalysis, AttributionStudy, swap_outcomes

CONF = Path(__file__).resolve().parents[2] / "conf"
IDENTITIES = {"ann": 0, "bob": 90, "cat": 180, "dan": 270}


def unit(degrees: float) -> list[float]:
    angle = np.deg2rad(degrees)
    return [float(np.cos(angle)), float(np.sin(angle))]


def outcomes(
    probes: dict[str, tuple[str, str, float]], *galleries: str, copies: bool = False
) -> list[Swap]:
    """Each probe: by its starting image, whose condition (image, pair) and its angle.

    Everybody has the images 1 and 2, ten degrees apart.

    Args:
        copies: whether these two are near-duplicates of each other.
    """
    rows = [
        {"sample_id": f"{p}/{n}", "identity": p, "view": ORIGINAL, "embedding": unit(a + 10 * n)}
        for p, a in IDENTITIES.items()
        for n in (1, 2)
    ]
    origins = []
    for sample, (condition, pair, angle) in probes.items():
        own = {"sample_id": sample, "identity": sample[:3]}
        rows.append({**own, "view": "swapped", "embedding": unit(angle)})
        origins.append(
            {
                **own, "split": "evaluation", "anonymizer": "swapped", "sample": 0, "seed": 0,
                "image": b"", "condition_id": condition, "condition_identity": condition[:3],
                "pair": pair,
            }
        )  # fmt: skip
    embeddings = pa.Table.from_pylist(rows[::-1], embeddings_schema(2))
    if copies:
        contents = [sample[:3] for sample in embeddings["sample_id"].to_pylist()]
        embeddings = embeddings.append_column(CONTENT_ID, pa.array(contents, pa.string()))
    return swap_outcomes(
        embeddings,
        pa.Table.from_pylist(origins, SWAPPED),
        "swapped",
        "adaptive_contrastive",
        galleries=galleries,
    )


class TestOutcomes:
    def test_by_hand(self) -> None:
        (result,) = outcomes(
            {
                "ann/1": ("bob/1", "ann", 95.0),  # near bob
                "bob/1": ("ann/2", "ann", 100.0),  # near bob, the start
                "cat/2": ("dan/1", "cat", 5.0),  # near ann, who is neither
            },
            "source_included",
        )
        assert result.condition.tolist() == [1, 0, 0]
        assert result.start.tolist() == [0, 1, 0]
        assert result.pairs.tolist() == ["ann", "ann", "cat"]
        assert (result.anonymizer, result.attacker, result.gallery, result.gallery_size) == (
            "swapped", "adaptive_contrastive", "source_included", 4,
        )  # fmt: skip

    def test_neither_image_behind_it_is_in_the_gallery(self) -> None:
        """ann/1 and ann/2 are at 10 and 20 degrees, bob/1 and bob/2 at 100 and 110."""
        probe = {"ann/2": ("bob/1", "ann", 56.0)}
        included, excluded = outcomes(probe, "source_included", "source_excluded")
        assert (included.condition.tolist(), included.start.tolist()) == ([0], [1])
        assert (excluded.condition.tolist(), excluded.start.tolist()) == ([0], [1])
        probe = {"ann/2": ("bob/1", "ann", 64.0)}
        included, excluded = outcomes(probe, "source_included", "source_excluded")
        assert (included.condition.tolist(), included.start.tolist()) == ([1], [0])
        assert (excluded.condition.tolist(), excluded.start.tolist()) == ([1], [0])
        probe = {"ann/2": ("bob/1", "ann", 57.0)}
        moved = outcomes({"ann/2": ("bob/2", "ann", 57.0)}, "source_excluded")[0]
        assert moved.condition.tolist() == [1], "ann/1 is 47 degrees away, bob/1 only 43"
        whole = outcomes(probe, "source_included")[0]
        assert whole.start.tolist() == [1], "ann/2 is 37 degrees away"

    def test_near_duplicates_of_the_images_behind_it_are_left_out_with_them(self) -> None:
        probe = {"ann/2": ("bob/1", "cat", 9.0)}
        (apart,) = outcomes(probe, "source_excluded")
        assert apart.start.tolist() == [1], "ann/1 is at 10 degrees"
        with pytest.raises(BadInputError, match="no probe's person has an image left"):
            outcomes(probe, "source_excluded", copies=True)

    def test_other_galleries_are_passed_over(self) -> None:
        assert outcomes({"ann/1": ("bob/1", "ann", 95.0)}, "anonymized_only") == []


def attack(name: str, attacker: str, rate: float, gallery: str = "source_excluded") -> AttackResult:
    hits = np.arange(20) < 20 * rate
    names = np.array([f"p{number:02}" for number in range(20)])
    ranks = Ranks(np.where(hits, 0, 4), np.zeros(20, np.int64), names, names, 20)
    return AttackResult(name, attacker, "full_ref", gallery, ranks)


class FakeLeak(AttributionAnalysis):
    """Remembers what is swapped instead of drawing."""

    def swaps(self, faces: Any, anonymizer: Any, attackers: Any) -> list[Swap]:
        self.asked: tuple[Any, list[tuple[Attacker, Any]]] = (anonymizer, list(attackers))
        ones = np.ones(4)
        pairs = np.array(list("aabb"))
        return [
            Swap(
                anonymizer.name,
                "adaptive_contrastive",
                "source_excluded",
                ones,
                0 * ones,
                pairs,
                20,
            )
        ]


@pytest.fixture
def config(tmp_path: Path) -> AuditConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose(
            "audit", [f"cache_dir={tmp_path}", f"output={tmp_path}", "audit.n_bootstrap=100"]
        )
    return build_audit(composed)


def attack_results(*attacks: AttackResult) -> AttackResults:
    encoders: dict[Any, Any] = {(a.anonymizer, a.attacker): f"weights of {a.anonymizer}"
                                for a in attacks}  # fmt: skip
    return AttackResults(list(attacks), fitted=encoders)


class TestExplain:
    ATTACKS = (
        attack("no_op", "adaptive_contrastive", 1.0),
        attack("cldm-none", "adaptive_contrastive", 0.1),
        attack("cldm-canny-1.0", "condition_only", 0.9),
        attack("cldm-canny-1.0", "adaptive_contrastive", 0.5),
        attack("cldm-depth-1.0", "adaptive_contrastive", 0.4),
        attack("cldm-depth-1.0", "adaptive_contrastive", 0.9, "source_included"),
    )

    def explained(self, config: AuditConfig, *attacks: AttackResult) -> tuple[FakeLeak, Any]:
        leak = FakeLeak(config, SimpleNamespace(), SimpleNamespace())  # type: ignore[arg-type]
        return leak, leak.explain(SimpleNamespace(), attack_results(*attacks))  # type: ignore[arg-type]

    def test_the_setting_that_leaks_most_and_who_learnt_from_it(self, config: AuditConfig) -> None:
        leak, result = self.explained(config, *self.ATTACKS)
        anonymizer, ((attacker, encoder),) = leak.asked
        assert anonymizer.name == "cldm-canny-1.0-img2img-0.8"
        assert (attacker.name, encoder) == ("adaptive_contrastive", "weights of cldm-canny-1.0")
        assert result.headline.startswith("100.0 % [")
        assert {row.question for row in result.rows} == {"swap", "ablation", "scale", "proxy"}
        carried = {
            row.anonymizer: row.value for row in result.rows if row.measure == "carried_share"
        }
        assert carried == pytest.approx({"cldm-canny-1.0": 0.8, "cldm-depth-1.0": 0.75})

    def test_attackers_that_did_not_learn_where_there_are_no_others(
        self, config: AuditConfig
    ) -> None:
        leak, _ = self.explained(config, self.ATTACKS[2], attack("cldm-canny-1.0", "other", 0.3))
        ((attacker, _),) = leak.asked[1]
        assert attacker.name == "condition_only"

    def test_a_setting_that_starts_from_the_image_is_taken_as_it_is(
        self, config: AuditConfig
    ) -> None:
        anonymizer: Any = replace(config.anonymizers["cldm_canny"], mode="img2img", strength=0.6)  # type: ignore[type-var]
        changed = replace(config, anonymizers={"mine": anonymizer})
        leak, _ = self.explained(changed, attack(anonymizer.name, "adaptive_contrastive", 0.5))
        assert leak.asked[0] == anonymizer

    def test_one_step_starts_from_noise_alone(self, config: AuditConfig) -> None:
        anonymizer: Any = replace(config.anonymizers["cldm_canny"], num_inference_steps=1)  # type: ignore[type-var]
        changed = replace(config, anonymizers={"mine": anonymizer})
        leak, _ = self.explained(changed, attack(anonymizer.name, "adaptive_contrastive", 0.5))
        assert (leak.asked[0].mode, leak.asked[0].strength) == ("img2img", 1.0)

    def test_nothing_to_explain(self, config: AuditConfig) -> None:
        _, result = self.explained(config, *self.ATTACKS[:2])
        assert result is None

    def test_regions(self, config: AuditConfig) -> None:
        leak = FakeLeak(config, SimpleNamespace(), SimpleNamespace())  # type: ignore[arg-type]
        result = attack_results(*self.ATTACKS)
        result.regions.append(attack("cldm-canny-1.0 region=face", "adaptive_contrastive", 0.25))
        whole = leak.attribution(result, [], ["So it is."])
        (row,) = whole.of("region")
        assert (row.anonymizer, row.subset, row.value) == ("cldm-canny-1.0", "region=face", 0.25)
        assert whole.statements[-1] == "So it is."
        assert whole.confidence_level == config.audit.confidence_level


def test_a_study_says_how_good_its_attackers_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A public recognizer alone is silent, which is no reason for an operating point."""
    overrides = [
        "faces=lfw",
        f"faces.root={tmp_path}",
        "attackers=[pretrained]",
        "audit.n_bootstrap=100",
        "attribution.swap.anonymizers=[]",
        "attribution.operating_point.target_k=2",
        f"cache_dir={tmp_path}",
        f"output={tmp_path}",
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = build_attribution(compose("attribute", overrides))
    study = AttributionStudy(config)
    attacks = [attack(name, "pretrained", 0.05) for name in config.searched]
    pairs = [(each.anonymizer, each.attacker) for each in attacks]
    results = AttackResults(
        attacks, curves={pair: [] for pair in pairs}, clean=dict.fromkeys(pairs, 0.99)
    )
    faces = SimpleNamespace(manifest=SimpleNamespace(content="0" * 64))
    images = SimpleNamespace(faces=faces, anonymized=defaultdict(str), content_ids={}, notes=[])
    monkeypatch.setattr(study.preparation, "listing", lambda: None)
    monkeypatch.setattr(study.preparation, "run", lambda listing: images)
    monkeypatch.setattr(study.runner, "run", lambda *of: results)
    monkeypatch.setattr(study.utility, "run", lambda *of: SimpleNamespace(rows=[]))

    outcome = study._study()

    weakness = "no attacker that learns from anonymized images was there"
    (statement,) = outcome.attribution.statements
    assert "the loosest that stays significantly under 1/2" in statement
    assert f"But nothing can be concluded from that: attacker too weak to conclude: {weakness}" in (
        statement
    )
    assert any(note.startswith("No attacker here learnt from a public") for note in outcome.notes)
    assert any(weakness in note for note in outcome.notes)
    assert outcome.notes[-1] == "Shares are of the leak that these attackers show."
