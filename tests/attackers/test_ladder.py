import pytest

from cldmray import hashing
from cldmray.attackers.base import Rung, training_order
from cldmray.attackers.condition_match import EdgeMatch
from cldmray.attackers.contrastive import Adaptive, ClearTrained, EdgeProxy
from cldmray.attackers.distilled import TeacherGuided
from cldmray.attackers.nn.encoder import EncoderConfig
from cldmray.attackers.nn.training import TrainingConfig
from cldmray.attackers.pretrained import OffTheShelf
from cldmray.conditions.canny import Canny


class TestTrainingConfig:
    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("steps", 0),
            ("warmup", 0),
            ("validate_every", 0),
            ("cache_chunk", 0),
            ("batch", 1),
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
            rung.name: (rung.query, rung.probe_condition, rung.per_anonymizer)
            for rung in (ClearTrained(), EdgeProxy(condition=Canny(50, 100)), Adaptive())
        }
        assert found == {
            "clear_trained": ("photo", None, False),
            "edge_proxy": ("condition", Canny(50, 100), False),
            "adaptive": ("anonymized", None, True),
        }

    def test_a_label_is_the_name(self) -> None:
        kinds = (ClearTrained, EdgeProxy, Adaptive, EdgeMatch, OffTheShelf, TeacherGuided)
        assert {kind(label="mine").name for kind in kinds} == {"mine"}
        assert len({kind().name for kind in kinds}) == len(kinds)
        for kind in kinds:
            with pytest.raises(ValueError, match="^label may hold"):
                kind(label="a/b")

    def test_every_setting_enters_the_fingerprint(self) -> None:
        rungs = [
            ClearTrained(),
            Adaptive(),
            Adaptive(start_from="clear_trained"),
            Adaptive(training=TrainingConfig(seed=1)),
            Adaptive(label="other"),
            Adaptive(EncoderConfig(backbone="resnet50")),
            Adaptive(EncoderConfig(input_side=32)),
            EdgeProxy(),
            EdgeProxy(condition=Canny(50, 100)),
        ]
        found = {hashing.fingerprint(hashing.describe(rung)) for rung in rungs}
        assert len(found) == len(rungs)


class TestTrainingOrder:
    def test_bases_come_first(self) -> None:
        rungs: dict[str, Rung] = {
            "a": Adaptive(start_from="clear_trained"),
            "e": EdgeProxy(start_from="clear_trained"),
            "c": ClearTrained(),
        }
        assert training_order(rungs) == ["c", "a", "e"]
        assert training_order({"e": EdgeProxy(), "c": ClearTrained()}) == ["e", "c"]
        assert training_order({"m": EdgeMatch(), **rungs}) == ["m", "c", "a", "e"]
        assert training_order({}) == []

    def test_a_start_is_named_by_its_label(self) -> None:
        base, child = ClearTrained(label="base"), Adaptive(start_from="base")
        assert training_order({"a": child, "c": base}) == ["c", "a"]
        with pytest.raises(ValueError, match="^a.start_from: 'base' is not"):
            training_order({"a": child, "c": ClearTrained()})

    @pytest.mark.parametrize(
        ("rungs", "message"),
        [
            ({"a": Adaptive(start_from="clear_trained")}, "^a.start_from: 'clear_trained' is not"),
            (
                {"e": EdgeMatch(), "c": ClearTrained(start_from="edge_match")},
                "^c.start_from: .* not",
            ),
            ({"c": ClearTrained(start_from="clear_trained")}, "^c.start_from: .* not another"),
            (
                {"a": Adaptive(), "e": EdgeProxy(start_from="adaptive")},
                "^e.start_from: 'adaptive' must itself",
            ),
            (
                {
                    "c": ClearTrained(start_from="edge_proxy"),
                    "e": EdgeProxy(start_from="clear_trained"),
                },
                "start afresh",
            ),
            (
                {
                    "c": ClearTrained(),
                    "a": Adaptive(EncoderConfig(width=8), start_from="clear_trained"),
                },
                "^a.encoder: must be that of c",
            ),
        ],
    )
    def test_errors_name_the_rung(self, rungs: dict[str, Rung], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            training_order(rungs)
