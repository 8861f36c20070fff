"""The settings of an inversion: what is tried, what is varied, and which errors name which key."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from cldmray.attackers.pretrained import Pretrained
from cldmray.attackers.reconstruction.attacker import ReconstructionAttacker
from cldmray.attackers.reconstruction.base import ReconstructionModel
from cldmray.attackers.reconstruction.nearest_neighbor import NearestNeighbor
from cldmray.attackers.reconstruction.unet import UNetReconstruction
from cldmray.conditions.canny import Canny
from cldmray.config.audit import build_audit
from cldmray.config.instantiate import build, to_container
from cldmray.config.reconstruction import (
    ReconstructionConfig,
    build_reconstruction,
    candidate_of,
    controls_of,
    settings_of,
)
from cldmray.engine import tuning
from cldmray.engine.tuning import TrialSpec
from cldmray.errors import ConfigError, MissingDependencyError
from cldmray.recognizers.sface import SFace
from tests.config.only_audit import ONLY_AUDIT

CONF = Path(__file__).resolve().parents[2] / "conf"
RECONSTRUCTORS = sorted((CONF / "reconstruction_model").glob("*.yaml"))
SEARCH = "reconstruction.search.trials=2"


def composed(*overrides: str, name: str = "invert") -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


def config(*overrides: str) -> ReconstructionConfig:
    return build_reconstruction(composed(*overrides))


class TestFiles:
    @pytest.mark.parametrize("path", RECONSTRUCTORS, ids=lambda path: path.stem)
    def test_every_model_lists_all_its_settings(self, path: Path) -> None:
        overrides = [
            "attackers=[reconstruction]",
            f"reconstruction_model@attackers.reconstruction.model={path.stem}",
        ]
        whole = composed(*overrides, name="audit")
        attacker = build_audit(whole).attackers["reconstruction"]
        assert isinstance(attacker, ReconstructionAttacker)
        node = to_container(whole)["attackers"]["reconstruction"]["model"]
        assert set(node) - {"_target_"} == set(type(attacker.model).__dataclass_fields__)
        assert path.read_text().startswith("# ")
        if path.stem not in ("unet_short", "diffusion"):
            assert attacker.model == type(attacker.model)()

    def test_the_attacker(self) -> None:
        whole = composed("attackers=[pretrained,reconstruction]", name="audit")
        assert build_audit(whole).attackers["reconstruction"] == ReconstructionAttacker()
        node = to_container(whole)["attackers"]["reconstruction"]
        assert set(node) - {"_target_"} == set(ReconstructionAttacker.__dataclass_fields__)

    def test_the_default_audit_does_not_invert(self) -> None:
        attackers = build_audit(composed(name="audit")).attackers.values()
        assert not any(isinstance(attacker, ReconstructionAttacker) for attacker in attackers)


class TestAttackers:
    def test_every_model_has_its_controls(self) -> None:
        configured = config(
            "+reconstruction_model@reconstruction.models.alike=nearest_neighbor",
            "reconstruction.budget=9",
        )
        attackers = configured.with_attackers(None).attackers
        assert list(attackers) == [
            "unet",
            "unet-shuffled",
            "nearest_neighbor",
            "mean_face",
            "nearest_training_face",
        ]
        raw, shuffled = configured.raw().attackers["raw"], attackers["unet-shuffled"]
        assert isinstance(raw, Pretrained) and isinstance(shuffled, ReconstructionAttacker)
        assert raw.recognizer == configured.reconstruction.held_out_recognizer
        assert shuffled.model == UNetReconstruction(shuffled=True, label="unet-shuffled")
        assert all(
            r.budget == 9 for r in attackers.values() if isinstance(r, ReconstructionAttacker)
        )
        assert controls_of(UNetReconstruction()) == [
            "mean_face",
            "nearest_training_face",
            "unet-shuffled",
        ]
        assert controls_of(NearestNeighbor()) == ["mean_face", "nearest_training_face"]

    def test_what_a_search_has_found_stands_beside_them(self) -> None:
        best = TrialSpec(UNetReconstruction(label="unet-tuned", blocks=2), 5)
        attackers = config().with_attackers(best).attackers
        for key in ("unet-tuned", "unet-tuned-shuffled"):
            attacker = attackers[key]
            assert isinstance(attacker, ReconstructionAttacker)
            assert attacker.budget == 5
        assert attackers["unet"] == ReconstructionAttacker(
            UNetReconstruction(),
            config().reconstruction.held_out_recognizer,
            SFace(),
            None,
            label="unet",
        )

    def test_all_look_at_the_same_square_of_the_face_also_in_the_trials(self) -> None:
        configured = config("faces=folder", "faces.root=faces")
        crop = configured.audit.faces.face_crop
        assert crop == pytest.approx((0.083, 0.083, 0.917, 0.917), abs=1e-3)
        attacker = configured.with_attackers(None).attackers["unet"]
        trial = configured.make({"blocks": "2"}).reconstruction
        assert isinstance(attacker, ReconstructionAttacker)
        assert isinstance(attacker.model, UNetReconstruction)
        assert isinstance(trial, UNetReconstruction)
        assert trial.guide == attacker.model.guide and trial.guide.crop == crop
        settings = configured.reconstruction
        assert settings.validation_recognizer == attacker.validation_recognizer
        assert settings.validation_recognizer.crop == crop
        own = config(
            "faces=folder", "faces.root=x", "reconstruction.models.unet.guide.crop=[0,0,1,1]"
        )
        guided = own.reconstruction.models["unet"]
        assert isinstance(guided, UNetReconstruction) and guided.guide.crop == (0, 0, 1, 1)

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            (
                ["reconstruction.models.unet.shuffled=true"],
                "reconstruction.models.unet: is a control",
            ),
            (
                ["recognizer@reconstruction.held_out_recognizer=sface"],
                "reconstruction.held_out_recognizer: sface has a part",
            ),
            *ONLY_AUDIT,
            (["attackers=[pretrained]"], "attackers: the reconstruction models are the attackers"),
            (["audit.n_training_seeds=2"], "audit.n_training_seeds: must be 1 here"),
            (["reconstruction.budget=0"], "reconstruction.budget: must be at least 1, got 0"),
            (["~reconstruction.models.unet"], "reconstruction.models: choose at least one"),
            (
                ["reconstruction.n_example_images=-1"],
                "reconstruction.n_example_images: must not be negative",
            ),
            (
                ["reconstruction.nothing=1"],
                "reconstruction.nothing: ReconstructionSettings has no such setting",
            ),
            (
                [SEARCH, "reconstruction.search.model=x"],
                "reconstruction.search.model: 'x' is none of",
            ),
            ([SEARCH, "~reconstruction.search.space"], "reconstruction.search.space: name what is"),
            (
                [SEARCH, "reconstruction.search.space.blocks.choices=[0]"],
                "reconstruction.search.space.blocks: blocks: must be at least 1",
            ),
            (
                [SEARCH, "+reconstruction.search.space.new.choices=[0]"],
                "reconstruction.search.space.new: new: UNetReconstruction has no such setting",
            ),
            (
                [SEARCH, "reconstruction.search.space.budget.choices=[0]"],
                "reconstruction.search.space.budget: budget: must be null or at least 1",
            ),
            (
                [SEARCH, "reconstruction.search.space.identity.low=3"],
                "reconstruction.search.space.identity.low: give either choices, or low below high",
            ),
        ],
    )
    def test_errors_name_the_key(self, overrides: list[str], message: str) -> None:
        overrides = [f"+{text}" if "nothing" in text else text for text in overrides]
        with pytest.raises(ConfigError, match=f"^{message}"):
            config(*overrides)

    def test_optuna_must_be_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def absent(name: str) -> None:
            assert name == "optuna"

        monkeypatch.setattr(tuning.importlib.util, "find_spec", absent)
        with pytest.raises(MissingDependencyError, match=r"optuna: pip install 'cldmray\[tune\]'"):
            tuning.check_tune()


class TestCandidates:
    def test_settings_are_built_back(self) -> None:
        reconstructor = UNetReconstruction(widths=(8, 16), condition=Canny(10, 20), label="a")
        assert build(settings_of(reconstructor), ReconstructionModel, "") == reconstructor

    def test_dotted_settings_and_the_budget(self) -> None:
        values = {"training.learning_rate": 0.5, "widths": [8], "budget": 7, "guide.align": "fixed"}
        made, budget = candidate_of(UNetReconstruction(), None, values)
        assert isinstance(made, UNetReconstruction)
        assert (made.training.learning_rate, made.widths, budget) == (0.5, (8,), 7)
        with pytest.raises(ConfigError, match="widths.x: unet has no settings widths"):
            candidate_of(UNetReconstruction(), None, {"widths.x": 1})

    def test_what_tune_draws(self) -> None:
        drawn = {
            "widths": "[8, 8]",
            "budget": "null",
            "condition": '{"_target_": "cldmray.conditions.canny.Canny"}',
            "identity": 0.25,
        }
        candidate = config(SEARCH, "reconstruction.budget=3").make(drawn)
        assert candidate == TrialSpec(
            UNetReconstruction(widths=(8, 8), condition=Canny(), identity=0.25), None
        )
