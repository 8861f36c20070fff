"""The rung's settings: who may judge, what a further training changes."""

from dataclasses import replace

import pytest

from cldmray.attackers.reconstruction.attacker import InversionRung
from cldmray.attackers.reconstruction.controls import MeanFaceInversion
from cldmray.attackers.reconstruction.nearest_neighbor import EmbeddingInversion
from cldmray.attackers.reconstruction.unet import UNetInversion
from cldmray.recognizers.dlib import DlibResNet
from cldmray.recognizers.onnx import OnnxRecognizer
from cldmray.recognizers.sface import SFace


def test_its_shape() -> None:
    rung = InversionRung()
    assert (rung.name, rung.dimensions, rung.per_anonymizer) == ("inversion", 128, True)
    assert rung.inverter == UNetInversion(
        training=replace(UNetInversion().training, steps=300, validate_every=100)
    )
    assert InversionRung(label="mine").name == "mine"
    assert rung.probe_condition is None and rung.knows_clear_faces


def test_the_judge_must_have_had_no_part() -> None:
    with pytest.raises(ValueError, match="^judge: sface has a part"):
        InversionRung(judge=SFace(align="landmarks"))
    other = OnnxRecognizer("x.onnx", label="other")
    with pytest.raises(ValueError, match="^judge: dlib has a part"):
        InversionRung(EmbeddingInversion(teacher=DlibResNet()), validator=other)
    with pytest.raises(ValueError, match="^judge: sface has a part"):
        InversionRung(UNetInversion(), judge=SFace(), validator=other)
    assert InversionRung(MeanFaceInversion(), judge=SFace(), validator=other).judge == SFace()


def test_budget() -> None:
    with pytest.raises(ValueError, match="^budget: must be at least 1, got 0"):
        InversionRung(budget=0)


def test_a_further_training_has_another_seed() -> None:
    rung = InversionRung()
    assert rung.trained and rung.seeded(0) == rung
    second = rung.seeded(2).inverter
    assert isinstance(second, UNetInversion)
    assert second.training.seed == 2
    control = InversionRung(MeanFaceInversion())
    assert not control.trained and control.seeded(2) == control


def test_steps() -> None:
    assert InversionRung().inverter.steps == 300
    assert MeanFaceInversion().steps == 0
    assert EmbeddingInversion().steps == 0
