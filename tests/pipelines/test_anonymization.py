"""Images written by ``cldmray anonymize`` are those that an audit attacks, and are found again."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from pyarrow import csv

from cldmray.anonymizers.base import Batch
from cldmray.anonymizers.baselines import Blur
from cldmray.anonymizers.precomputed import Precomputed
from cldmray.config.audit import AuditConfig, build_audit
from cldmray.errors import ConfigError
from cldmray.faces.decode import decode_whole
from cldmray.faces.synthetic import SyntheticFaces
from cldmray.pipelines.jobs import run_anonymization, run_audit

CONF = Path(__file__).parents[2] / "conf"


def configured(folder: Path, *more: str) -> AuditConfig:
    overrides = [
        "faces=folder",
        f"faces.root={folder}/faces",
        "faces.size=48",
        "faces.align=none",
        "splits.min_images=2",
        "splits.n_evaluation_identities=3",
        "anonymizers=[no_op,blur]",
        "anonymizers.blur.sigma=2",
        "attackers=[condition_match]",
        f"output={folder}/out",
        f"cache_dir={folder}/cache",
        *more,
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build_audit(compose("audit", overrides))


def test_a_plan_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^audit.dry_run: .*cldmray plan"):
        run_anonymization(configured(tmp_path, "audit.dry_run=true"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("output", ["faces", "faces/new/out", "out/../faces/out", "link/out"])
@pytest.mark.parametrize("key", ["faces", "gallery.faces"])
@pytest.mark.parametrize("run", [run_anonymization, lambda config: run_audit(config, {})])
def test_no_image_is_written_among_the_originals(
    tmp_path: Path, output: str, key: str, run: Callable[[AuditConfig], object]
) -> None:
    (tmp_path / "faces").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "faces")
    config = configured(tmp_path, f"output={tmp_path}/{output}")
    if key != "faces":
        own = SyntheticFaces(n_identities=4, images_per_identity=2, size=64)
        gallery = replace(config.gallery, faces=config.faces)
        config = replace(config, faces=own, gallery=gallery)
    with pytest.raises(ConfigError, match=rf"^output: .* the folder of {key} \("):
        run(config)
    assert not list((tmp_path / "faces").iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_images_are_written_and_found_again(tmp_path: Path) -> None:
    source = SyntheticFaces(n_identities=4, images_per_identity=2, size=64)
    for identity, image in product(range(4), range(2)):
        (content,) = source.read([f"{identity}/{image}"])
        path = tmp_path / "faces" / f"p{identity}" / f"{image}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content or b"")
    config = configured(tmp_path)
    folders = run_anonymization(config)
    assert folders == [f"{tmp_path}/out/no_op", f"{tmp_path}/out/blur"]
    listing = config.faces.listing()
    read = config.faces.open()
    for folder, sigma in zip(folders, (None, 2.0), strict=True):
        manifest = csv.read_csv(f"{folder}/manifest.csv").to_pylist()
        assert len(manifest) == 6  # three people are evaluated, and no attacker learns
        originals = config.faces.read([row["original"] for row in manifest])
        images = np.stack([read(content).image for content in originals])
        batch = Batch([row["sample_id"] for row in manifest], images, np.zeros(6, np.int64))
        expected = images if sigma is None else Blur(sigma).open()(batch)
        files = [Path(folder, row["anonymized"]).read_bytes() for row in manifest]
        np.testing.assert_array_equal(np.stack([decode_whole(file) for file in files]), expected)
        for table in (None, f"{folder}/manifest.csv"):
            again = Precomputed(folder, config.faces, table=table)
            kept = again.select(listing["sample_id"].to_pylist())
            assert kept.sum() == 6
            np.testing.assert_array_equal(again.open()(batch), expected)
