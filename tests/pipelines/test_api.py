"""The Python API takes names, objects, functions, arrays and tables."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import cldmray
from cldmray.anonymizers.baselines import Blur
from cldmray.anonymizers.precomputed import Precomputed
from cldmray.attackers.condition_match import ConditionMatch
from cldmray.config.audit import AuditConfig, build_audit
from cldmray.errors import BadInputError, ConfigError
from cldmray.faces import FolderFaces, LfwFaces
from cldmray.faces.records import encode_image
from cldmray.faces.sources.parquet import ParquetFaces
from cldmray.faces.sources.survey import recognize
from cldmray.faces.sources.table import TableFaces
from cldmray.faces.sources.webdataset import WebDatasetFaces
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.pipelines import api
from cldmray.pipelines.jobs import JobResult
from cldmray.tracking import DeferredErrors, TrackingError
from tests.small_audit import IMAGES, N_EVALUATED


def configured(
    faces: Any = "synthetic", anonymizers: Any = None, attackers: Any = None, **overrides: Any
) -> AuditConfig:
    return build_audit(api._settings("audit", faces, anonymizers, attackers, "small", overrides))


def darker(images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    return images // 2


class TestPublicNames:
    def test_all_are_there(self) -> None:
        for name in cldmray.__all__:
            assert getattr(cldmray, name).__name__ == name
        assert set(cldmray.__all__) <= set(dir(cldmray))

    def test_others_are_not(self) -> None:
        with pytest.raises(AttributeError, match="no attribute 'audits'"):
            cldmray.audits  # noqa: B018


class TestMembers:
    def test_names_objects_and_mappings_keep_their_order(self) -> None:
        target = {"_target_": "cldmray.anonymizers.baselines.Pixelate", "label": "mosaic"}
        config = configured(anonymizers=[Blur(3.0, "soft"), "no_op", target, "blur"])
        names = [item.name for item in config.anonymizers.values()]
        assert names == ["soft", "no_op", "mosaic", "blur"]
        assert config.anonymizers["soft"] == Blur(3.0, "soft")

    def test_a_function_is_an_anonymizer(self) -> None:
        config = configured(anonymizers=[darker], attackers=[ConditionMatch(), "pretrained"])
        assert list(config.anonymizers) == ["darker"]
        assert list(config.attackers) == ["condition_match", "pretrained"]

    def test_the_defaults_are_those_of_the_command(self) -> None:
        config = configured()
        assert list(config.anonymizers)[:2] == ["no_op", "blur"]
        assert config.tracking is None

    @pytest.mark.parametrize(
        ("anonymizers", "message"),
        [
            ("blur", "anonymizers: give a list"),
            ([7], "anonymizers: 7 is no name, no object"),
            (["nosuch"], ".*nosuch"),
            (["copy"], "anonymizers: copy is now called no_op"),
            ([Blur(), "blur"], "anonymizers.blur_: has the same name"),
            ([{"_target_": "cldmray.conditions.canny.Canny"}], "anonymizers.Canny._target_: Canny"),
        ],
    )
    def test_errors_name_the_key(self, anonymizers: Any, message: str) -> None:
        with pytest.raises(ConfigError, match=f"^{message}"):
            configured(anonymizers=anonymizers)


class TestOverrides:
    def test_dotted_keys_mappings_and_objects(self) -> None:
        config = configured(
            SyntheticFaces(n_identities=30, images_per_identity=2),
            ["blur"],
            output="here",
            audit={"n_bootstrap": 200},
            tracking="sqlite",
            engine={"actors": 1},
            **{"audit.seed": 4, "anonymizers.blur.sigma": 2.0},
        )
        assert config.faces == SyntheticFaces(n_identities=30, images_per_identity=2)
        assert (config.audit.n_bootstrap, config.audit.seed, config.output) == (200, 4, "here")
        assert config.anonymizers["blur"] == Blur(2.0)
        assert config.engine.actors == 1
        assert config.tracking is not None and config.tracking.uri == "sqlite:///mlflow.db"

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            ({"audit": {"titel": "x"}}, "audit.titel: AuditSettings has no such setting"),
            ({"work": "x"}, "work: now called cache_dir"),
            ({"output.x": 1}, "output.x: output is no group of settings"),
            ({"audit.target_k": 1}, "audit.target_k: must be at least 2, got 1"),
        ],
    )
    def test_errors_name_the_key(self, overrides: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=f"^{message}"):
            configured(**overrides)


def test_a_plan_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    places = {"output": str(tmp_path / "out"), "cache_dir": str(tmp_path / "cache")}
    with pytest.raises(ConfigError, match=r"^audit.dry_run: .*cldmray plan"):
        cldmray.audit(audit={"dry_run": True}, **places)
    assert not list(tmp_path.iterdir())


class TestLostTracking:
    @staticmethod
    def result(is_lost: bool) -> JobResult:
        with DeferredErrors() as deferred:
            deferred.written("runs/1")
            if is_lost:
                raise TrackingError("MLflow is gone")
        return JobResult("runs/1/report.html", ("http://mlflow", "run"), deferred)

    @pytest.mark.parametrize(
        ("call", "job"),
        [
            (cldmray.audit, "run_audit"),
            (cldmray.attribute, "run_attribution"),
            (cldmray.invert, "run_reconstruction"),
        ],
    )
    def test_a_warning_tells_of_a_run_that_is_not_there(
        self,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        call: Callable[[], JobResult],
        job: str,
    ) -> None:
        monkeypatch.setattr(api, job, lambda config, settings: self.result(is_lost=True))
        result = call()
        assert result.mlflow is None
        assert result.places == "Report: runs/1/report.html"
        (warning,) = [each for each in caplog.records if each.levelname == "WARNING"]
        assert "complete in runs/1, but not in MLflow. MLflow is gone" in warning.getMessage()
        with pytest.raises(TrackingError, match="MLflow is gone"):
            result.raise_tracking_error()

    def test_a_run_that_is_there_stays(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(api, "run_audit", lambda *_: self.result(is_lost=False))
        assert cldmray.audit().mlflow == ("http://mlflow", "run")
        assert not caplog.records


class TestFaces:
    @pytest.mark.parametrize(
        ("files", "place", "expected"),
        [
            (["Ann/1.jpg", "Bob/1.jpg"], "", FolderFaces),
            (["Ann_Lee/Ann_Lee_0001.jpg", "Bob/Bob_0001.jpg"], "", LfwFaces),
            (["Ann_1.jpg", "Ann_2.jpg", "Bob_1.jpg", "Bob_2.jpg"], "", FolderFaces),
            (["faces.tar"], "", WebDatasetFaces),
            (["faces.tar"], "faces.tar", WebDatasetFaces),
            (["faces.parquet"], "faces.parquet", ParquetFaces),
            (["1.jpg", "faces.csv"], "", TableFaces),
        ],
    )
    @pytest.mark.parametrize("kind", [str, Path])
    def test_folders_and_files(
        self, tmp_path: Path, kind: Any, files: list[str], place: str, expected: type
    ) -> None:
        for name in files:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("path,identity\n1.jpg,Ann\n")
        faces = configured(kind(tmp_path / place), **{"faces.size": 96}).faces
        assert type(faces) is expected and faces.size == 96
        layout = recognize(str(tmp_path / place))
        assert replace(layout.source, size=96) == replace(faces, name=layout.source.name)

    def test_what_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match="no folder or file .*nowhere, and no option"):
            configured(tmp_path / "nowhere")
        assert isinstance(configured("lfw").faces, LfwFaces)

    def test_images_anonymized_elsewhere_belong_to_the_given_faces(self, tmp_path: Path) -> None:
        given = SyntheticFaces(n_identities=30, images_per_identity=2)
        overrides = {"anonymizers.precomputed.root": "x"}
        config = configured(given, ["precomputed"], **overrides)
        assert config.anonymizers["precomputed"] == Precomputed("x", given)
        sized = configured(anonymizers=["precomputed"], **overrides, **{"faces.size": 96})
        assert sized.anonymizers["precomputed"] == Precomputed("x", sized.faces)
        assert sized.faces.size == 96

    def test_arrays(self, tmp_path: Path) -> None:
        images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
        names = ["ann", "ann", "bob", "bob"]
        faces = configured((images, names), cache_dir=str(tmp_path)).faces
        assert isinstance(faces, ParquetFaces) and faces.size == 32
        listing = faces.listing()
        assert sorted(listing["identity"].to_pylist()) == names
        again = configured((list(images), names), cache_dir=str(tmp_path)).faces
        assert again.listing()["version"] == listing["version"]

    @pytest.mark.parametrize("kind", ["pandas", "arrow", "hugging_face"])
    def test_tables(self, tmp_path: Path, kind: str) -> None:
        image = encode_image(np.zeros((16, 16, 3), np.uint8))
        columns = {"identity": ["ann", "bob"], "image": [image, image], "age": [1, 2]}
        table = pa.table(columns)

        class Dataset:
            def with_format(self, kind: str) -> dict[Any, pa.Table]:
                class Whole(dict):  # type: ignore[type-arg]
                    def __getitem__(self, rows: slice) -> pa.Table:
                        return table

                assert kind == "arrow"
                return Whole()

        given = {"pandas": pd.DataFrame(columns), "arrow": table, "hugging_face": Dataset()}[kind]
        faces = configured(given, cache_dir=str(tmp_path)).faces
        assert sorted(faces.listing()["identity"].to_pylist()) == ["ann", "bob"]

    @pytest.mark.parametrize(
        ("faces", "message"),
        [
            (7, "faces: give a folder"),
            (pa.table({"identity": ["a"]}), "faces: the table lacks image"),
            ((np.zeros((1, 8, 8, 3), np.uint8), []), "faces: 1 images do not fit 0 identities"),
            ((np.zeros((1, 8, 8), np.uint8), ["a"]), "faces: images must be uint8"),
        ],
    )
    def test_what_is_no_faces(self, tmp_path: Path, faces: Any, message: str) -> None:
        with pytest.raises(BadInputError, match=f"^{message}"):
            configured(faces, cache_dir=str(tmp_path))


@pytest.mark.slow
def test_a_whole_audit(tmp_path: Path, cache_dir: Path) -> None:
    result = cldmray.audit(
        SyntheticFaces(n_identities=20, images_per_identity=IMAGES, size=64),
        anonymizers=[darker, "blur"],
        attackers=[ConditionMatch()],
        output=str(tmp_path / "out"),
        cache_dir=str(cache_dir),
        splits={
            "n_evaluation_identities": N_EVALUATED,
            "min_images": IMAGES,
            "validation_fraction": 0.3,
        },
        audit={"utility": [], "attribution": False, "n_bootstrap": 100},
    )
    assert isinstance(result, cldmray.AuditResult)
    assert set(result.table["anonymizer"]) == {"darker", "blur"}
    assert 0 <= result.risk("darker").risk <= 1
    with pytest.raises(BadInputError, match="no anonymizer is called 'nosuch'; there are "):
        result.risk("nosuch")
    assert result.verdict.sentence
    assert {stage.name for stage in result.record.stages if stage.reused} == {
        "faces",
        "near-duplicates",
    }, "an object has the key of the same settings in a file"
    result.report(str(tmp_path / "copy.html"))
    assert (tmp_path / "copy.html").read_text() == (tmp_path / "out/report.html").read_text()
    assert result.mlflow is None
