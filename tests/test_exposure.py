"""What an audit finds out before any stage runs: groups of the people who are audited."""

from pathlib import Path

import pyarrow as pa
import pytest
from hydra import compose, initialize_config_dir

from cldmray.conditions import ControlNetAux
from cldmray.config import build_audit
from cldmray.engine.stages import Stages
from cldmray.errors import BadInputError, MissingDependencyError
from cldmray.exposure import Exposure

CONF = Path(__file__).resolve().parents[1] / "conf"
LISTING = pa.table({"identity": ["ann", "bob"], "split": ["evaluation", "attacker"]})


def exposure(tmp_path: Path, text: str) -> Exposure:
    (tmp_path / "groups.csv").write_text(text)
    overrides = ["faces=folder", f"faces.root={tmp_path}", "anonymizer=[copy]"]
    overrides.append(f"faces.groups_file={tmp_path}/groups.csv")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = build_audit(compose("audit", overrides))
    return Exposure(config, Stages(str(tmp_path), lambda line: None), lambda line: None)


def test_groups_of_audited_people(tmp_path: Path) -> None:
    one = exposure(tmp_path, "identity,sex\nann,f\ncat,f\n")
    found = one.groups(LISTING)
    assert found is not None and found["identity"].to_pylist() == ["ann", "cat"]
    assert one.notes == []


def test_groups_of_strangers_are_noted(tmp_path: Path) -> None:
    one = exposure(tmp_path, "identity,sex\nbob,m\ncat,f\n")
    assert one.groups(LISTING) is not None
    assert one.notes == [
        "The source names groups of people, but of nobody who is audited: no row of the results "
        "is of a group."
    ]


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="^faces.groups_file: .*groups.csv"):
        exposure(tmp_path, "who,sex\nann,f\n").groups(LISTING)


def test_what_an_anonymizer_lacks_is_found_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ["faces=folder", f"faces.root={tmp_path}", "anonymizer=[copy,sd15_depth]"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = build_audit(compose("audit", overrides))
    one = Exposure(config, Stages(str(tmp_path), lambda line: None), lambda line: None)

    def absent(condition: ControlNetAux) -> None:
        raise MissingDependencyError(f"no {condition.detector}")

    monkeypatch.setattr(ControlNetAux, "check", absent)
    with pytest.raises(MissingDependencyError, match=r"^anonymizer\.sd15_depth: no midas"):
        one.check()
    monkeypatch.setattr(ControlNetAux, "check", lambda condition: None)
    one.check()
