"""A whole small audit of a folder with bad files, and of people with a single image."""

import re
from pathlib import Path

import pyarrow.compute as pc
import pytest
from hydra import compose, initialize_config_dir

from cldmray.config.audit import build_audit
from cldmray.errors import BadInputError
from cldmray.faces.decode import CANNOT_OPEN, EMPTY, NOT_AN_IMAGE, TRUNCATED
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.hashing import identity_hash
from cldmray.pipelines.audit import Audit
from cldmray.results.audit import AuditReport

ROOT = Path(__file__).resolve().parents[2]
IDENTITIES, IMAGES = 20, 4


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """80 images in a folder, one sub-folder a person."""
    source = SyntheticFaces(n_identities=IDENTITIES, images_per_identity=IMAGES, size=48)
    listing = source.listing().sort_by([("identity", "ascending"), ("location", "ascending")])
    contents = source.read(listing["location"].to_pylist())
    for place, content in enumerate(contents):
        assert content is not None
        path = tmp_path / "faces" / f"p{place // IMAGES:02}" / f"{place % IMAGES}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "faces"


def audit(root: Path, *overrides: str) -> AuditReport:
    cache_dir = root.parent / "cache_dir"
    fixed = [
        "faces=folder",
        "faces.align=none",
        f"faces.root={root}",
        "faces.size=48",
        "splits.min_images=2",
    ]
    fixed += [
        "splits.n_evaluation_identities=16",
        "anonymizers=[no_op]",
        "attackers=[condition_match]",
    ]
    fixed += ["audit.attribution=false", "audit.utility=[]", "audit.n_bootstrap=100"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = build_audit(
            compose("audit", [*fixed, f"cache_dir={cache_dir}", "output=o", *overrides])
        )
    return Audit(config, {}).run({}).report


def spoil(root: Path) -> dict[str, str]:
    """Spoil 4 of the 80 files, which is 5 %; returns what is wrong with each."""
    images = {f"p{identity:02}/{image}.png": root / f"p{identity:02}" / f"{image}.png"
              for identity, image in ((0, 0), (3, 1), (7, 2), (9, 0))}  # fmt: skip
    empty, cut, formatting, gone = images.values()
    cut.write_bytes(cut.read_bytes()[:200])
    empty.write_bytes(b"")
    formatting.write_bytes(b"not an image at all")
    gone.unlink()
    gone.symlink_to(root / "nowhere.png")
    return dict(zip(images, (EMPTY, TRUNCATED, NOT_AN_IMAGE, CANNOT_OPEN), strict=True))


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
class TestAudits:
    def test_bad_files_and_a_person_with_one_image(self, root: Path) -> None:
        """Bad files are listed, all others are audited, and the single image is noted."""
        spoilt = spoil(root)
        for image in range(1, IMAGES):
            (root / "p02" / f"{image}.png").unlink()
        names = root.parent / "list.txt"
        names.write_text("\n".join(f"p{identity:02}" for identity in range(16)))
        report = audit(root, f"splits.evaluation={names}")
        reasons = {row["location"]: row["reason"] for row in report.rejected.to_pylist()}
        assert reasons == spoilt
        (stage,) = [stage for stage in report.stages if stage.name == "faces"]
        assert stage.rows == IDENTITIES * IMAGES - len(spoilt) - (IMAGES - 1)
        assert [note for note in report.notes if "one usable image" in note] == [
            "1 of the 16 evaluated people have one usable image only (one is "
            f"identity {identity_hash('p02')}): it stands "
            "in everybody's gallery, but is a probe only where the gallery includes the source."
        ]
        rates = report.results.filter(pc.equal(report.results["measure"], "rank_1")).to_pylist()
        images = {row["gallery"]: row["n_probes"] for row in rates if row["level"] == "image"}
        # 16 people with 4 images each, without 3 images of one and 4 bad files.
        assert images == {"source_excluded": 56, "source_included": 57, "anonymized_only": 56}
        assert {row["gallery_size"] for row in rates} == {16}

    def test_too_many_bad_files_stop_it_and_are_named(self, root: Path) -> None:
        spoilt = spoil(root)
        expected = (
            r"4 of 80 files cannot be used, more than audit.max_invalid_fraction=0.04 allows: "
        )
        with pytest.raises(BadInputError, match=expected) as caught:
            audit(root, "audit.max_invalid_fraction=0.04")
        reasons = re.findall(r"image [0-9a-f]{16}: (.+?)(?:;| \.\.\.)", str(caught.value))
        assert len(reasons) == 3 and set(reasons) <= set(spoilt.values())
        assert not any(name in str(caught.value) for name in spoilt), "file names tell of people"
        assert "rejected.parquet" in str(caught.value)

    def test_images_that_are_none_do_not_count_for_a_person(self, root: Path) -> None:
        for image in range(1, IMAGES):
            (root / "p02" / f"{image}.png").write_bytes(b"<html>404</html>")
        report = audit(root, f"splits.n_evaluation_identities={IDENTITIES}")
        assert [note for note in report.notes if "not evaluated" in note] == [
            "1 people are not evaluated, because fewer of their images than splits.min_images=2 "
            f"can be used (one is identity {identity_hash('p02')})."
        ]
        assert not [note for note in report.notes if "one usable image" in note]
        assert report.data is not None and report.data.n_identities == IDENTITIES - 1
        assert report.rejected.num_rows == IMAGES - 1

    def test_people_left_without_images_stop_it(self, root: Path) -> None:
        names = root.parent / "list.txt"
        names.write_text("p00\np01")
        for image in range(IMAGES):
            (root / "p01" / f"{image}.png").write_bytes(b"")
        with pytest.raises(
            BadInputError, match=f"^splits: .* only identity {identity_hash('p00')} has"
        ):
            audit(root, f"splits.evaluation={names}")
