"""The attacker's settings: who may evaluate, what a further training changes."""

from dataclasses import replace

import pytest

from cldmray.attackers.reconstruction.attacker import ReconstructionAttacker
from cldmray.attackers.reconstruction.controls import MeanFace
from cldmray.attackers.reconstruction.nearest_neighbor import NearestNeighbor
from cldmray.attackers.reconstruction.unet import UNetReconstruction
from cldmray.recognizers.dlib import DlibResNet
from cldmray.recognizers.onnx import OnnxRecognizer
from cldmray.recognizers.sface import SFace


def test_its_shape() -> None:
    attacker = ReconstructionAttacker()
    assert (attacker.name, attacker.dimensions, attacker.learns_from_anonymized) == (
        "reconstruction",
        128,
        True,
    )
    assert attacker.model == UNetReconstruction(
        training=replace(UNetReconstruction().training, max_steps=300, validate_every=100)
    )
    assert ReconstructionAttacker(label="mine").name == "mine"
    assert attacker.probe_condition is None and attacker.recognizes_clean_faces


def test_the_held_out_recognizer_must_have_had_no_part() -> None:
    with pytest.raises(ValueError, match="^held_out_recognizer: sface has a part"):
        ReconstructionAttacker(held_out_recognizer=SFace(align="landmarks"))
    other = OnnxRecognizer("x.onnx", label="other")
    with pytest.raises(ValueError, match="^held_out_recognizer: dlib has a part"):
        ReconstructionAttacker(NearestNeighbor(teacher=DlibResNet()), validation_recognizer=other)
    with pytest.raises(ValueError, match="^held_out_recognizer: sface has a part"):
        ReconstructionAttacker(
            UNetReconstruction(), held_out_recognizer=SFace(), validation_recognizer=other
        )
    assert (
        ReconstructionAttacker(
            MeanFace(), held_out_recognizer=SFace(), validation_recognizer=other
        ).held_out_recognizer
        == SFace()
    )


def test_budget() -> None:
    with pytest.raises(ValueError, match="^budget: must be at least 1, got 0"):
        ReconstructionAttacker(budget=0)


def test_a_further_training_has_another_seed() -> None:
    attacker = ReconstructionAttacker()
    assert attacker.has_seed and attacker.with_seed(0) == attacker
    second = attacker.with_seed(2).model
    assert isinstance(second, UNetReconstruction)
    assert second.training.seed == 2
    control = ReconstructionAttacker(MeanFace())
    assert not control.has_seed and control.with_seed(2) == control


def test_steps() -> None:
    assert ReconstructionAttacker().model.max_steps == 300
    assert MeanFace().max_steps == 0
    assert NearestNeighbor().max_steps == 0
