"""Pixels of anonymized faces against those of their originals, from tables in files."""

import numpy as np
import pyarrow as pa
import pytest

from cldmray.engine.artifacts import Artifact, read_manifest
from cldmray.engine.map_stages.untouched import PIXELS, compare_pixels
from cldmray.faces.records import ANONYMIZED, EVALUATION, decode_images, encode_images
from cldmray.faces.regions import FACE, ellipse

pytestmark = pytest.mark.usefixtures("local_ray")


def test_each_image_is_compared_with_its_own_original(faces, write_table, tmp_path):
    originals = faces.read()
    images = decode_images(originals["image"].to_pylist())
    outside = ~ellipse(32, 32, FACE)
    framed, brighter = images.copy(), np.clip(images.astype(int) + 3, 0, 255).astype(np.uint8)
    framed[:, outside] = 0
    tables = []
    for name, anonymized in (("framed", framed), ("brighter", brighter)):
        table = originals.set_column(3, "image", encode_images(anonymized))
        for column, value in (("anonymizer", name), ("sample", 0), ("seed", 5)):
            table = table.append_column(column, pa.array([value] * len(table)))
        table = table.select(ANONYMIZED.names).cast(ANONYMIZED)
        tables.append(write_table(str(tmp_path / name), ANONYMIZED, [[table[:9]], [table[9:]]]))
    folder = str(tmp_path / "pixels")
    compare_pixels(faces, tables, folder)
    rows = Artifact(folder, read_manifest(folder), "key").read()
    assert rows.schema.equals(PIXELS)
    evaluated = faces.read(["sample_id"], EVALUATION)["sample_id"].to_pylist()
    differences = {
        view: {r["sample_id"]: r["difference"] for r in rows.to_pylist() if r["view"] == view}
        for view in ("framed", "brighter")
    }
    assert sorted(differences["framed"]) == sorted(differences["brighter"]) == evaluated
    assert set(differences["framed"].values()) == {0.0}
    assert all(2 < value <= 3 for value in differences["brighter"].values())
