import pytest

from cldmray import hashing
from cldmray.attackers.base import Attacker, training_order
from cldmray.attackers.condition_match import ConditionMatch
from cldmray.attackers.contrastive import AdaptiveContrastive, CleanTrained, ConditionOnly
from cldmray.attackers.distilled import AdaptiveDistilled
from cldmray.attackers.nn.encoder import EncoderConfig
from cldmray.attackers.nn.training import TrainingConfig
from cldmray.attackers.pretrained import Pretrained
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


class TestRungs:
    def test_what_they_read(self) -> None:
        found = {
            attacker.name: (attacker.query, attacker.probe_condition, attacker.per_anonymizer)
            for attacker in (
                CleanTrained(),
                ConditionOnly(condition=Canny(50, 100)),
                AdaptiveContrastive(),
            )
        }
        assert found == {
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
            with pytest.raises(ValueError, match="^label may hold"):
                kind(label="a/b")

    def test_every_setting_enters_the_fingerprint(self) -> None:
        attackers = [
            CleanTrained(),
            AdaptiveContrastive(),
            AdaptiveContrastive(init_from="clean_trained"),
            AdaptiveContrastive(training=TrainingConfig(seed=1)),
            AdaptiveContrastive(label="other"),
            AdaptiveContrastive(EncoderConfig(backbone="resnet50")),
            AdaptiveContrastive(EncoderConfig(input_side=32)),
            ConditionOnly(),
            ConditionOnly(condition=Canny(50, 100)),
        ]
        found = {hashing.fingerprint(hashing.canonicalize(attacker)) for attacker in attackers}
        assert len(found) == len(attackers)


class TestTrainingOrder:
    def test_bases_come_first(self) -> None:
        attackers: dict[str, Attacker] = {
            "a": AdaptiveContrastive(init_from="clean_trained"),
            "e": ConditionOnly(init_from="clean_trained"),
            "c": CleanTrained(),
        }
        assert training_order(attackers) == ["c", "a", "e"]
        assert training_order({"e": ConditionOnly(), "c": CleanTrained()}) == ["e", "c"]
        assert training_order({"m": ConditionMatch(), **attackers}) == ["m", "c", "a", "e"]
        assert training_order({}) == []

    def test_a_start_is_named_by_its_label(self) -> None:
        base, child = CleanTrained(label="base"), AdaptiveContrastive(init_from="base")
        assert training_order({"a": child, "c": base}) == ["c", "a"]
        with pytest.raises(ValueError, match="^a.init_from: 'base' is not"):
            training_order({"a": child, "c": CleanTrained()})

    @pytest.mark.parametrize(
        ("attackers", "message"),
        [
            (
                {"a": AdaptiveContrastive(init_from="clean_trained")},
                "^a.init_from: 'clean_trained' is not",
            ),
            (
                {"e": ConditionMatch(), "c": CleanTrained(init_from="condition_match")},
                "^c.init_from: .* not",
            ),
            ({"c": CleanTrained(init_from="clean_trained")}, "^c.init_from: .* not another"),
            (
                {"a": AdaptiveContrastive(), "e": ConditionOnly(init_from="adaptive_contrastive")},
                "^e.init_from: 'adaptive_contrastive' must itself",
            ),
            (
                {
                    "c": CleanTrained(init_from="condition_only"),
                    "e": ConditionOnly(init_from="clean_trained"),
                },
                "start afresh",
            ),
            (
                {
                    "c": CleanTrained(),
                    "a": AdaptiveContrastive(EncoderConfig(width=8), init_from="clean_trained"),
                },
                "^a.encoder: must be that of c",
            ),
        ],
    )
    def test_errors_name_the_attacker(self, attackers: dict[str, Attacker], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            training_order(attackers)
