"""What an audit finds out before any stage runs: groups of the people who are audited."""

import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from cldmray import storage
from cldmray.conditions import ControlNetAux
from cldmray.config.audit import AuditConfig, build_audit
from cldmray.detection.yunet import YuNet
from cldmray.engine.artifacts import REJECTED_FILE, Artifact, Manifest
from cldmray.engine.map_stages.near_duplicates import NEAR_DUPLICATES
from cldmray.engine.stages import Stages
from cldmray.errors import BadInputError, MissingDependencyError
from cldmray.faces.base import FaceSource
from cldmray.faces.records import ATTACKER, ATTACKER_VALIDATION, EVALUATION, REJECTED
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.gallery.identities import distractor_listing
from cldmray.pipelines.data_notes import duplicate_notes, duplicates_of_evaluated
from cldmray.pipelines.data_preparation import DataPreparation, Listing, PreparedImages

CONF = Path(__file__).resolve().parents[2] / "conf"
LISTING = pa.table({"identity": ["ann", "bob"], "split": ["evaluation", "attacker"]})


def configured(*overrides: str) -> AuditConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build_audit(compose("audit", ["attackers=[condition_match]", *overrides]))


def started(config: AuditConfig, cache_dir: Path) -> DataPreparation:
    return DataPreparation(config, Stages(str(cache_dir)))


def preparation(tmp_path: Path, text: str) -> DataPreparation:
    (tmp_path / "groups.csv").write_text(text)
    overrides = ["faces=folder", f"faces.root={tmp_path}", "anonymizers=[no_op]"]
    overrides.append(f"faces.groups_file={tmp_path}/groups.csv")
    return started(configured(*overrides), tmp_path)


def test_groups_of_audited_people(tmp_path: Path) -> None:
    single = preparation(tmp_path, "identity,sex\nann,f\ncat,f\n")
    groups, notes = single.groups(LISTING)
    assert groups is not None and groups["identity"].to_pylist() == ["ann", "cat"]
    assert notes == []


def test_groups_of_strangers_are_noted(tmp_path: Path) -> None:
    single = preparation(tmp_path, "identity,sex\nbob,m\ncat,f\n")
    groups, notes = single.groups(LISTING)
    assert groups is not None
    assert notes == [
        "The source names groups of people, but of nobody who is audited: no row of the results "
        "is of a group."
    ]


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="^faces.groups_file: .*groups.csv"):
        preparation(tmp_path, "who,sex\nann,f\n").groups(LISTING)


def test_a_bad_file_of_groups_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="^faces.groups_file: .*groups.csv"):
        preparation(tmp_path, "who,sex\nann,f\n").check()
    preparation(tmp_path, "identity,sex\nann,f\n").check()


class TestModels:
    """Folders that cannot be used are found before any work starts, under the setting's key."""

    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        from cldmray.anonymizers.diffusion.model_folder import EMBEDDED_FOLDER

        return Path(shutil.copytree(EMBEDDED_FOLDER, tmp_path / "model"))

    def check(self, model: Path) -> str:
        overrides = ["anonymizers=[no_op,cldm_canny]", f"anonymizers.cldm_canny.model={model}"]
        single = started(configured(*overrides), model.parent / "cache_dir")
        with pytest.raises(BadInputError) as caught:
            single.check()
        return str(caught.value)

    def test_a_whole_model_is_fine(self, tmp_path: Path) -> None:
        started(configured("anonymizers=[no_op,cldm_canny]"), tmp_path).check()

    def test_absent(self, tmp_path: Path) -> None:
        message = self.check(tmp_path / "nowhere")
        assert message == f"anonymizers.cldm_canny: no such folder: {tmp_path}/nowhere"

    def test_incomplete(self, model: Path) -> None:
        shutil.rmtree(model / "vae")
        assert self.check(model) == f"anonymizers.cldm_canny: no such folder: {model}/vae"

    def test_cut_short(self, model: Path) -> None:
        (weights,) = (model / "controlnet-canny").glob("*.safetensors")
        weights.write_bytes(weights.read_bytes()[:-100])
        expected = f"anonymizers.cldm_canny: {weights} is not a whole safetensors file"
        assert self.check(model).startswith(expected)

    def test_pickled(self, model: Path) -> None:
        (weights,) = (model / "unet").glob("*.safetensors")
        weights.rename(weights.with_suffix(".bin"))
        assert self.check(model) == (
            f"anonymizers.cldm_canny: {model}/unet has pickled weights only "
            f"({weights.stem}.bin), which are never read: save the model with "
            "safe_serialization=True"
        )


class TestIdentities:
    """Who is audited, out of a folder of images and a list of people."""

    def identities(
        self, root: Path, listed: list[str], *overrides: str, **images: int
    ) -> DataPreparation:
        for name, count in images.items():
            for number in range(count):
                path = root / "faces" / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"")
        (root / "list.txt").write_text("\n".join(listed))
        folder = ["faces=folder", f"faces.root={root}/faces", "anonymizers=[no_op]"]
        return started(configured(*folder, f"splits.evaluation={root}/list.txt", *overrides), root)

    def test_one_person_is_no_gallery(self, tmp_path: Path) -> None:
        single = self.identities(tmp_path, ["ann"], ann=3, bob=3)
        with pytest.raises(BadInputError, match="^splits: .* only identity [0-9a-f]{12} has a"):
            single.listing()

    def test_nobody_has_a_second_image(self, tmp_path: Path) -> None:
        single = self.identities(tmp_path, ["ann", "bob"], ann=1, bob=1, cat=4)
        expected = "^audit.galleries: source_excluded needs a second image of a person, and"
        with pytest.raises(BadInputError, match=expected):
            single.listing()

    def test_the_source_itself_is_enough_where_nothing_else_is_asked(self, tmp_path: Path) -> None:
        asked = "audit.galleries=[source_included]"
        single = self.identities(tmp_path, ["ann", "bob"], asked, ann=1, bob=1, cat=4)
        assert single.listing().samples["identity"].to_pylist().count("ann") == 1

    def test_what_the_advice_says_is_checked_as_well(self, tmp_path: Path) -> None:
        asked = "audit.galleries=[source_included]", "attackers=[clean_trained]"
        single = self.identities(tmp_path, ["ann", "bob"], *asked, ann=1, bob=1, cat=4)
        with pytest.raises(BadInputError, match="^attackers.clean_trained: .*have one image"):
            single.listing()


class TestImagesAnonymizedElsewhere:
    """Three images of each of two evaluated people, of which some were anonymized."""

    def preparation(self, root: Path, *anonymized: str) -> DataPreparation:
        for folder, names in (
            ("faces", [f"{name}/{number}.jpg" for name in ("ann", "bob") for number in range(3)]),
            ("anonymized", anonymized),
        ):
            for name in names:
                path = root / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"")
        (root / "list.txt").write_text("ann\nbob")
        overrides = ["faces=folder", f"faces.root={root}/faces", "anonymizers=[no_op,precomputed]"]
        overrides += [f"anonymizers.precomputed.root={root}/anonymized"]
        return started(configured(*overrides, f"splits.evaluation={root}/list.txt"), root)

    def test_what_is_missing_is_said(self, tmp_path: Path) -> None:
        single = self.preparation(tmp_path, "ann/0.png", "ann/2_anonymized.png", "cat/1.png")
        (note,) = single.listing().notes
        assert note.startswith("precomputed has 2 of the 6 images of evaluated people, of 1 of 2")

    def test_files_that_cannot_be_used_are_counted(self, tmp_path: Path) -> None:
        names = [f"{name}/{number}.png" for name in ("ann", "bob") for number in range(3)]
        single = self.preparation(tmp_path, *names)
        samples = single.listing().samples
        tables = {
            "faces": samples.select(["sample_id", "split"]),
            "precomputed": samples.slice(1).select(["sample_id", "split"]),
            "worse": samples.slice(2).select(["sample_id", "split"]),
        }
        artifacts = {}
        for name, table in tables.items():
            storage.write_table(f"{tmp_path}/{name}/part.parquet", table)
            splits = {EVALUATION: len(table)}
            manifest = Manifest({"part.parquet": len(table)}, splits=splits)
            artifacts[name] = Artifact(f"{tmp_path}/{name}", manifest, "0" * 16)
        faces = artifacts["faces"]
        whole = {"no_op": faces, "precomputed": faces}
        assert single._unusable_notes(faces, whole) == []
        with pytest.raises(BadInputError, match=r"^anonymizers\.precomputed: 1 of 6 images of"):
            single._unusable_notes(faces, {"precomputed": artifacts["precomputed"]})
        config = replace(
            single.config, audit=replace(single.config.audit, max_invalid_fraction=0.2)
        )
        patient = started(config, tmp_path)
        (note,) = patient._unusable_notes(faces, {"precomputed": artifacts["precomputed"]})
        assert note.startswith("1 of 6 images of precomputed cannot be used")
        with pytest.raises(BadInputError, match=r"2 of 6 .* audit\.max_invalid_fraction=0\.2"):
            patient._unusable_notes(faces, {"precomputed": artifacts["worse"]})

    def test_lost_images_that_attackers_learn_from_are_noted(self, tmp_path: Path) -> None:
        config = configured(
            "anonymizers=[blur]",
            "attackers=[condition_match,adaptive_contrastive]",
            "audit.samples_per_image=2",
        )
        splits = [EVALUATION] * 2 + [ATTACKER] * 10 + [ATTACKER_VALIDATION] * 4
        samples = [f"s{number:02d}" for number in range(len(splits))]
        listed = pa.table({"sample_id": samples, "split": splits})
        storage.write_table(f"{tmp_path}/faces/part.parquet", listed)
        counts = {EVALUATION: 2, ATTACKER: 10, ATTACKER_VALIDATION: 4}
        manifest = Manifest({"part.parquet": len(listed)}, splits=counts)
        faces = Artifact(f"{tmp_path}/faces", manifest, "0" * 16)
        lost = [
            {"sample_id": sample, "identity": "x", "location": "sample 0", "reason": reason}
            for sample, reason in (("s02", "it overflows"), ("s15", "it is grey"))
        ]
        storage.write_table(
            f"{tmp_path}/blur/{REJECTED_FILE}", pa.Table.from_pylist(lost, REJECTED)
        )
        left = {EVALUATION: 2, ATTACKER: 19, ATTACKER_VALIDATION: 3}
        blur = Artifact(f"{tmp_path}/blur", Manifest({}, splits=left, rejected=2), "1" * 16)
        single = started(config, tmp_path / "cache")
        attacker, validation = single._unusable_notes(faces, {"blur": blur})
        name = config.anonymizers["blur"].name
        assert attacker.startswith(
            f"1 of 20 images of {name} of attacker people cannot be used, because it overflows: "
        )
        assert validation.startswith(f"1 of 4 images of {name} of attacker_validation people")
        assert "because it is grey: " in validation

    def test_nothing_fits(self, tmp_path: Path) -> None:
        single = self.preparation(tmp_path, "cat/1.png")
        with pytest.raises(
            BadInputError, match=r"^anonymizers\.precomputed: precomputed: none of 1"
        ):
            single.check()
        with pytest.raises(BadInputError, match=r"has an image of none of the 6 images"):
            single.listing()

    def test_all_are_there(self, tmp_path: Path) -> None:
        names = [f"{name}/{number}.png" for name in ("ann", "bob") for number in range(3)]
        assert self.preparation(tmp_path, *names).listing().notes == []


def test_what_an_anonymizer_lacks_is_found_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ["faces=folder", f"faces.root={tmp_path}", "anonymizers=[no_op,sd15_depth]"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = build_audit(compose("audit", overrides))
    single = DataPreparation(config, Stages(str(tmp_path)))

    def absent(condition: ControlNetAux) -> None:
        raise MissingDependencyError(f"no {condition.detector}")

    monkeypatch.setattr(ControlNetAux, "check", absent)
    with pytest.raises(MissingDependencyError, match=r"^anonymizers\.sd15_depth: no midas"):
        single.check()
    monkeypatch.setattr(ControlNetAux, "check", lambda condition: None)
    single.check()


@pytest.mark.parametrize(
    "key", ["faces", "gallery.faces", "gallery.references", "audit.training_faces"]
)
def test_what_a_source_lacks_is_found_under_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    def absent(detector: YuNet) -> str:
        raise MissingDependencyError("pip install it")

    folder = [f"{key}.root={tmp_path}"]
    folder.append(f"{key}.name=unaligned")
    added = "" if key == "faces" else "+"
    group = "faces" if key == "faces" else f"faces@{key}"
    single = started(
        configured("anonymizers=[blur]", f"{added}{group}=folder", *folder), tmp_path / "cache"
    )
    single.check()
    monkeypatch.setattr(YuNet, "version", absent)
    with pytest.raises(MissingDependencyError, match=f"^{key}: faces cannot be .*pip install it"):
        single.check()


class TestNearDuplicates:
    """Notes and samples to leave out, from a table of pairs."""

    def pairs(self, *rows: tuple[str, str, str, str, str, str]) -> pa.Table:
        columns = NEAR_DUPLICATES.names[:6]
        table = [dict(zip(columns, row, strict=True)) for row in rows]
        return pa.Table.from_pylist(
            [{**row, "likeness": 0.95, "is_mirrored": False} for row in table], NEAR_DUPLICATES
        )

    def test_none_says_nothing(self) -> None:
        assert duplicate_notes(self.pairs()) == []
        assert duplicates_of_evaluated(self.pairs()) == []

    def test_what_is_evaluated_stays_and_its_copies_elsewhere_go(self) -> None:
        pairs = self.pairs(
            ("s1", "ann", EVALUATION, "s2", "cat", ATTACKER),
            ("s3", "dan", "auxiliary", "s4", "bob", EVALUATION),
            ("s5", "ann", EVALUATION, "s6", "ann", EVALUATION),
            ("s7", "cat", ATTACKER, "s8", "cat", ATTACKER),
        )
        assert duplicates_of_evaluated(pairs) == ["s2", "s3"]
        same, leaked, strangers = duplicate_notes(pairs)
        assert same.startswith("1 pair of near-duplicates") and "s5 and s6" in same
        assert leaked.startswith("2 images of other splits") and "image s2" in leaked
        assert strangers.startswith("2 pairs of near-duplicates stand under two different people")
        for note in (same, leaked, strangers):
            assert not {"ann", "bob", "cat", "dan"} & set(note.replace(",", " ").split())


@pytest.mark.usefixtures("local_ray")
def test_copies_of_evaluated_images_are_found_and_left_out(tmp_path: Path) -> None:
    source = SyntheticFaces(n_identities=8, images_per_identity=2, size=48)
    for identity, image in product(range(8), range(2)):
        (content,) = source.read([f"{identity}/{image}"])
        folder = tmp_path / "faces" / f"p{identity}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{image}.png").write_bytes(content or b"")
    config = configured(
        "faces=folder",
        "faces.align=none",
        f"faces.root={tmp_path}/faces",
        "faces.size=48",
        "splits.min_images=2",
        "splits.n_evaluation_identities=4",
        "anonymizers=[no_op]",
    )
    before = started(config, tmp_path / "cache").listing().samples
    is_evaluated = pc.equal(before["split"], EVALUATION)
    evaluated = sorted(set(before.filter(is_evaluated)["identity"].to_pylist()))
    others = sorted(set(before["identity"].to_pylist()) - set(evaluated))
    original = Image.open(tmp_path / "faces" / evaluated[0] / "0.png").convert("RGB")
    for identity in (evaluated[0], others[0]):
        original.save(tmp_path / "faces" / identity / "copy.jpg", quality=60)
    preparation = started(config, tmp_path / "cache")
    table, contents, notes = preparation.distinct_faces(preparation.listing().samples)
    images = table.read(["identity"])["identity"].to_pylist()
    assert len(images) == 17
    assert images.count(evaluated[0]) == 3 and images.count(others[0]) == 2
    assert len(notes) == 3 and "1 images of other splits" in notes[1]
    # The content ids join the three copies, of which one was left out.
    assert len(contents) == 3 and len(set(contents.values())) == 1
    assert len(set(contents) & set(table.read(["sample_id"])["sample_id"].to_pylist())) == 2


@pytest.mark.parametrize(
    ("splits", "refused"),
    [
        (["splits.n_evaluation_identities=12", "splits.validation_fraction=0.5"], False),
        (["splits.n_evaluation_identities=12", "splits.validation_fraction=0"], True),
        (["splits.n_evaluation_identities=24"], True),
    ],
)
def test_attackers_without_people_to_learn_from_are_refused(
    tmp_path: Path, splits: list[str], refused: bool
) -> None:
    config = configured(
        "faces.n_identities=24", "anonymizers=[blur]", "attackers=[clean_trained]", *splits
    )
    preparation = started(config, tmp_path)
    if not refused:
        assert len(preparation.listing().samples)
        return
    with pytest.raises(BadInputError, match="^attackers.clean_trained: .*validation_fraction"):
        preparation.listing()


@pytest.mark.parametrize("images_of_others", [1, 2])
@pytest.mark.parametrize(
    ("attacker", "message"),
    [
        ("clean_trained", r"^attackers\.clean_trained: .* there are 12 and 0: lower"),
        ("reconstruction", r"^attackers\.reconstruction: .*no validation person has two images"),
    ],
)
def test_attackers_validate_on_somebody_with_two_images(
    tmp_path: Path, images_of_others: int, attacker: str, message: str
) -> None:
    for number in range(60):
        folder = tmp_path / "faces" / f"p{number:02d}"
        folder.mkdir(parents=True)
        for image in range(5 if number < 20 else images_of_others):
            (folder / f"{image}.jpg").touch()
    config = configured(
        "faces=folder", f"faces.root={tmp_path}/faces", "anonymizers=[blur]",
        f"attackers=[{attacker}]", "splits.n_evaluation_identities=20",
    )  # fmt: skip
    preparation = started(config, tmp_path / "cache")
    if images_of_others == 2:
        assert len(preparation.listing().samples)
        return
    with pytest.raises(BadInputError, match=message):
        preparation.listing()


def test_an_attacker_that_cannot_learn_need_not_be_validated(tmp_path: Path) -> None:
    for number in range(60):
        folder = tmp_path / "faces" / f"p{number:02d}"
        folder.mkdir(parents=True)
        for image in range(5 if number < 20 else 1):
            (folder / f"{image}.jpg").touch()
    config = configured(
        "faces=folder", f"faces.root={tmp_path}/faces", "anonymizers=[no_op]",
        "attackers=[reconstruction]", "splits.n_evaluation_identities=20",
    )  # fmt: skip
    assert len(started(config, tmp_path / "cache").listing().samples)


def test_strangers_are_compared_with_the_references_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(
        "anonymizers=[blur]",
        "+faces@gallery.faces=synthetic",
        "gallery.faces.name=strangers",
        "gallery.faces.seed=1",
        "gallery.faces.n_identities=2",
        "+faces@gallery.references=synthetic",
        "gallery.references.name=references",
    )
    single = started(config, tmp_path)
    samples = single.listing().samples
    strangers = distractor_listing(config.gallery, config.faces)
    assert strangers is not None
    copied = strangers["sample_id"][0].as_py()
    tables: dict[str, pa.Table] = {"own": samples}
    compared: list[tuple[str, ...]] = []

    def read_stage(source: FaceSource, listing: pa.Table) -> Any:
        key = f"{source.name}-{len(listing)}"
        tables[key] = listing
        return SimpleNamespace(key=key, read=listing.select)

    def near_duplicates(*artifacts: Any) -> pa.Table:
        compared.append(tuple(artifact.key for artifact in artifacts))
        _, *references, last = compared[-1]
        if not (references and last.startswith("strangers")):
            return NEAR_DUPLICATES.empty_table()
        reference = tables[references[0]].slice(0, 1).to_pylist()[0]
        row = {key: reference[key] for key in ("sample_id", "identity", "split")}
        other = {"other_sample_id": copied, "other_identity": "x", "other_split": ATTACKER}
        return pa.Table.from_pylist(
            [{**row, **other, "likeness": 0.95, "is_mirrored": False}], NEAR_DUPLICATES
        )

    own = SimpleNamespace(key="own", read=samples.select)
    blurred = SimpleNamespace(key="blurred")
    monkeypatch.setattr(single, "distinct_faces", lambda listing: (own, {}, []))
    monkeypatch.setattr(single, "anonymize_stage", lambda key, faces: blurred)
    monkeypatch.setattr(single, "_unusable_notes", lambda faces, anonymized: [])
    monkeypatch.setattr(single, "_read_stage", read_stage)
    monkeypatch.setattr(single, "_near_duplicates", near_duplicates)
    monkeypatch.setattr(single.stages, "submit", lambda stage: stage)
    monkeypatch.setattr(single.stages, "result", lambda stage: stage)
    images = single.run(Listing(samples))
    assert images.references is not None
    assert compared[0] == ("own", images.references.key, f"strangers-{len(strangers)}")
    ((kept, _),) = images.distractors
    assert kept.key == f"strangers-{len(strangers) - 1}"
    assert copied not in tables[kept.key]["sample_id"].to_pylist()
    assert images.notes[0].startswith("1 images of gallery.faces are near-duplicates of evaluated ")


def test_originals_are_those_of_all_galleries() -> None:
    own, strangers, references = (cast(Artifact, SimpleNamespace(key=key)) for key in "abc")
    images = PreparedImages(
        own, {}, [], {}, [(own, (ATTACKER,)), (strangers, (ATTACKER,))], references
    )
    assert images.originals == [own, strangers, references]
    assert PreparedImages(own, {}, [], {}).originals == [own]
