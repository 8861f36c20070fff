import doctest
from types import ModuleType
from typing import Any

import pytest

from cldmray import hashing
from cldmray.anonymizers.baselines import Blur, NoOp
from cldmray.attackers import base, condition_match, contrastive, learning
from cldmray.attackers.base import Attacker
from cldmray.attackers.condition_match import ConditionMatch
from cldmray.attackers.contrastive import AdaptiveContrastive, CleanTrained, ConditionOnly
from cldmray.attackers.data import AttackData
from cldmray.attackers.distilled import AdaptiveDistilled
from cldmray.attackers.encoder_attacker import EncoderAttacker
from cldmray.attackers.nn.encoder import BackboneEncoder, SmallEncoder
from cldmray.attackers.nn.training import TrainingConfig
from cldmray.attackers.pretrained import Pretrained
from cldmray.attackers.score_fusion import ScoreFusion
from cldmray.conditions.canny import Canny


class TestTrainingConfig:
    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("max_steps", 0),
            ("warmup_steps", 0),
            ("validate_every", 0),
            ("micro_batch_size", 0),
            ("batch_size", 1),
            ("learning_rate", 0.0),
            ("learning_rate", float("nan")),
            ("temperature", -0.1),
            ("weight_decay", -1.0),
            ("augment", -0.5),
            ("augment", 1.5),
            ("seed", -1),
        ],
    )
    def test_errors_name_the_key(self, key: str, value: float) -> None:
        with pytest.raises(ValueError, match=f"^{key}: .*"):
            TrainingConfig(**{key: value})  # type: ignore[arg-type]


class TestAttackers:
    def test_what_they_read(self) -> None:
        actual = {
            attacker.name: (
                attacker.query,
                attacker.probe_condition,
                attacker.learns_from_anonymized,
            )
            for attacker in (
                CleanTrained(),
                ConditionOnly(condition=Canny(50, 100)),
                AdaptiveContrastive(),
            )
        }
        assert actual == {
            "clean_trained": ("image", None, False),
            "condition_only": ("condition", Canny(50, 100), False),
            "adaptive_contrastive": ("anonymized", None, True),
        }

    def test_a_label_is_the_name(self) -> None:
        kinds = (
            CleanTrained,
            ConditionOnly,
            AdaptiveContrastive,
            ConditionMatch,
            Pretrained,
            AdaptiveDistilled,
        )
        assert {kind(label="mine").name for kind in kinds} == {"mine"}
        assert len({kind().name for kind in kinds}) == len(kinds)
        for kind in kinds:
            with pytest.raises(ValueError, match="^label: may hold"):
                kind(label="a/b")

    def test_every_setting_enters_the_fingerprint(self) -> None:
        attackers = [
            CleanTrained(),
            AdaptiveContrastive(),
            AdaptiveContrastive(init_from=CleanTrained()),
            AdaptiveContrastive(training=TrainingConfig(seed=1)),
            AdaptiveContrastive(label="other"),
            AdaptiveContrastive(BackboneEncoder(backbone="resnet50")),
            AdaptiveContrastive(SmallEncoder(input_side=32)),
            ConditionOnly(),
            ConditionOnly(condition=Canny(50, 100)),
        ]
        actual = {hashing.fingerprint(hashing.canonicalize(attacker)) for attacker in attackers}
        assert len(actual) == len(attackers)


class TestInitFrom:
    def test_seeds_of_both_rise_together(self) -> None:
        attacker = AdaptiveContrastive(init_from=CleanTrained()).with_seed(2)
        assert isinstance(attacker.init_from, CleanTrained)
        assert (attacker.training.seed, attacker.init_from.training.seed) == (2, 2)
        assert attacker.has_seed and attacker.with_seed(0) == attacker

    def test_labels_decide_no_training(self) -> None:
        labelled = ConditionOnly(init_from=CleanTrained(label="base"), label="mine")
        assert labelled.without_labels() == ConditionOnly(init_from=CleanTrained())
        assert labelled.name == "mine" and labelled.prerequisites == (CleanTrained(label="base"),)

    def test_a_start_may_have_a_start(self) -> None:
        first = CleanTrained()
        assert CleanTrained(init_from=ConditionOnly(init_from=first)).prerequisites == (
            ConditionOnly(init_from=first),
        )
        assert CleanTrained().prerequisites == () == ConditionMatch().prerequisites

    @pytest.mark.parametrize(
        ("kind", "start", "message"),
        [
            (
                ConditionOnly,
                AdaptiveContrastive(),
                "^init_from: adaptive_contrastive learns from the anonymizer's images",
            ),
            (
                AdaptiveContrastive,
                CleanTrained(SmallEncoder(width=8)),
                "^init_from.encoder: must be the encoder of adaptive_contrastive",
            ),
        ],
    )
    def test_errors_name_the_setting(
        self, kind: type[EncoderAttacker], start: EncoderAttacker, message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            kind(init_from=start)

    def test_a_start_is_checked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        checked = []
        monkeypatch.setattr(CleanTrained, "check", lambda self: checked.append(self.name))
        AdaptiveContrastive(init_from=CleanTrained()).check()
        assert checked == ["clean_trained"]


class Recording:
    """A context that remembers what is trained."""

    def __init__(self) -> None:
        self.trained: list[tuple[str, bool, Any]] = []

    def train(self, attacker: Attacker, data: AttackData, make: Any, inputs: Any) -> str:
        self.trained.append((attacker.name, data.anonymized is not None, inputs))
        return f"weights of {attacker.name}"


def test_what_it_starts_from_is_trained_first_and_without_the_anonymizer() -> None:
    context: Any = Recording()
    data = AttackData("faces", "blurred", "blur")  # type: ignore[arg-type]
    fitted: Any = AdaptiveContrastive(init_from=CleanTrained()).fit(data, context)
    assert fitted == "weights of adaptive_contrastive"
    assert context.trained == [
        ("clean_trained", False, [None, None]),
        ("adaptive_contrastive", True, ["weights of clean_trained", None]),
    ]
    assert ConditionMatch().fit(data, context) is None


def test_what_can_be_attacked() -> None:
    assert not AdaptiveContrastive().can_attack(NoOp())
    assert AdaptiveContrastive().can_attack(Blur())
    assert CleanTrained().can_attack(NoOp()) and ScoreFusion().can_attack(NoOp())


def test_who_compares_all_images() -> None:
    attackers = [
        Pretrained(), CleanTrained(), ConditionOnly(), AdaptiveContrastive(), ConditionMatch(),
        AdaptiveDistilled(), ScoreFusion(),
    ]  # fmt: skip
    comparing = [attacker.name for attacker in attackers if attacker.compares_all_images]
    assert comparing == ["pretrained", "clean_trained"]


@pytest.mark.parametrize("module", [base, learning, contrastive, condition_match])
def test_examples(module: ModuleType) -> None:
    tried = doctest.testmod(module)
    assert tried.attempted and not tried.failed
