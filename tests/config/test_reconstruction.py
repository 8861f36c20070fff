"""The settings of an inversion: what is tried, what is varied, and which errors name which key."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from cldmray.attackers.pretrained import OffTheShelf
from cldmray.attackers.reconstruction.attacker import InversionRung
from cldmray.attackers.reconstruction.base import Inversion
from cldmray.attackers.reconstruction.nearest_neighbor import EmbeddingInversion
from cldmray.attackers.reconstruction.unet import UNetInversion
from cldmray.conditions.canny import Canny
from cldmray.config.audit import build_audit
from cldmray.config.instantiate import build, plain
from cldmray.config.reconstruction import (
    InversionConfig,
    build_inversion,
    candidate_of,
    controls_of,
    settings_of,
)
from cldmray.engine import tuning
from cldmray.engine.tuning import Candidate
from cldmray.errors import ConfigError, MissingDependencyError
from cldmray.recognizers.sface import SFace

CONF = Path(__file__).resolve().parents[2] / "conf"
INVERTERS = sorted((CONF / "inverter").glob("*.yaml"))
SEARCH = "inversion.search.trials=2"


def composed(*overrides: str, name: str = "invert") -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


def config(*overrides: str) -> InversionConfig:
    return build_inversion(composed(*overrides))


class TestFiles:
    @pytest.mark.parametrize("path", INVERTERS, ids=lambda path: path.stem)
    def test_every_inverter_lists_all_its_settings(self, path: Path) -> None:
        overrides = ["attack=[inversion]", f"inverter@attack.inversion.inverter={path.stem}"]
        whole = composed(*overrides, name="audit")
        rung = build_audit(whole).attack["inversion"]
        assert isinstance(rung, InversionRung)
        node = plain(whole)["attack"]["inversion"]["inverter"]
        assert set(node) - {"_target_"} == set(type(rung.inverter).__dataclass_fields__)
        assert path.read_text().startswith("# ")
        if path.stem not in ("unet_short", "diffusion"):
            assert rung.inverter == type(rung.inverter)()

    def test_the_rung(self) -> None:
        whole = composed("attack=[off_the_shelf,inversion]", name="audit")
        assert build_audit(whole).attack["inversion"] == InversionRung()
        node = plain(whole)["attack"]["inversion"]
        assert set(node) - {"_target_"} == set(InversionRung.__dataclass_fields__)

    def test_the_default_audit_does_not_invert(self) -> None:
        rungs = build_audit(composed(name="audit")).attack.values()
        assert not any(isinstance(rung, InversionRung) for rung in rungs)


class TestRungs:
    def test_every_way_back_has_its_controls(self) -> None:
        one = config("+inverter@inversion.inverters.alike=look_alike", "inversion.budget=9")
        rungs = one.with_rungs(None).attack
        assert list(rungs) == [
            "unet", "unet-shuffled", "look_alike", "mean_face", "nearest_training_face",
        ]  # fmt: skip
        raw, shuffled = one.raw().attack["raw"], rungs["unet-shuffled"]
        assert isinstance(raw, OffTheShelf) and isinstance(shuffled, InversionRung)
        assert raw.recognizer == one.inversion.judge
        assert shuffled.inverter == UNetInversion(shuffled=True, label="unet-shuffled")
        assert all(r.budget == 9 for r in rungs.values() if isinstance(r, InversionRung))
        assert controls_of(UNetInversion()) == [
            "mean_face", "nearest_training_face", "unet-shuffled",
        ]  # fmt: skip
        assert controls_of(EmbeddingInversion()) == ["mean_face", "nearest_training_face"]

    def test_what_a_search_has_found_stands_beside_them(self) -> None:
        best = Candidate(UNetInversion(label="unet-tuned", blocks=2), 5)
        rungs = config().with_rungs(best).attack
        for key in ("unet-tuned", "unet-tuned-shuffled"):
            rung = rungs[key]
            assert isinstance(rung, InversionRung)
            assert rung.budget == 5
        assert rungs["unet"] == InversionRung(
            UNetInversion(), config().inversion.judge, SFace(), None, label="unet"
        )

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            (["inversion.inverters.unet.shuffled=true"], "inversion.inverters.unet: is a control"),
            (["recognizer@inversion.judge=sface"], "inversion.judge: sface has a part"),
            (["audit.attacker_seeds=2"], "audit.attacker_seeds: must be 1 here"),
            (["inversion.budget=0"], "inversion.budget: must be at least 1, got 0"),
            (["~inversion.inverters.unet"], "inversion.inverters: choose at least one"),
            (["inversion.grid_pictures=-1"], "inversion.grid_pictures: must not be negative"),
            (["inversion.nothing=1"], "inversion.nothing: InversionSettings has no such setting"),
            ([SEARCH, "inversion.search.inverter=x"], "inversion.search.inverter: 'x' is none of"),
            ([SEARCH, "~inversion.search.space"], "inversion.search.space: name what is"),
            ([SEARCH, "inversion.search.space.blocks.choose=[0]"],
             "inversion.search.space.blocks: blocks: must be at least 1"),
            ([SEARCH, "+inversion.search.space.new.choose=[0]"],
             "inversion.search.space.new: new: UNetInversion has no such setting"),
            ([SEARCH, "inversion.search.space.budget.choose=[0]"],
             "inversion.search.space.budget: budget: must be null or at least 1"),
            ([SEARCH, "inversion.search.space.identity.low=3"],
             "inversion.search.space.identity.low: give either choose, or low below high"),
        ],
    )  # fmt: skip
    def test_errors_name_the_key(self, overrides: list[str], message: str) -> None:
        overrides = [f"+{one}" if "nothing" in one else one for one in overrides]
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
        inverter = UNetInversion(widths=(8, 16), condition=Canny(10, 20), label="a")
        assert build(settings_of(inverter), Inversion, "") == inverter

    def test_dotted_settings_and_the_budget(self) -> None:
        values = {"training.learning_rate": 0.5, "widths": [8], "budget": 7, "guide.align": "fixed"}
        made, budget = candidate_of(UNetInversion(), None, values)
        assert isinstance(made, UNetInversion)
        assert (made.training.learning_rate, made.widths, budget) == (0.5, (8,), 7)
        with pytest.raises(ConfigError, match="widths.x: unet has no settings widths"):
            candidate_of(UNetInversion(), None, {"widths.x": 1})

    def test_what_tune_draws(self) -> None:
        drawn = {
            "widths": "[8, 8]",
            "budget": "null",
            "condition": '{"_target_": "cldmray.conditions.canny.Canny"}',
            "identity": 0.25,
        }
        found = config(SEARCH, "inversion.budget=3").make(drawn)
        assert found == Candidate(
            UNetInversion(widths=(8, 8), condition=Canny(), identity=0.25), None
        )
