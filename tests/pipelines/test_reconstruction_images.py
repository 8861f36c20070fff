"""Images beside their images, and the grid that shows them."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from cldmray import storage
from cldmray.engine.artifacts import Artifact, Manifest, commit, read_manifest
from cldmray.faces.records import ANONYMIZED, ATTACKER, EVALUATION, FACES, encode_image
from cldmray.pipelines.reconstruction_study import grid, reconstructed_images


def flat(value: int) -> bytes:
    return encode_image(np.full((4, 4, 3), value, np.uint8))


def table(folder: Path, rows: pa.Table) -> Artifact:
    storage.write_table(str(folder / "part.parquet"), rows)
    commit(str(folder), Manifest({"part.parquet": len(rows)}))
    manifest = read_manifest(str(folder))
    assert manifest is not None
    return Artifact(str(folder), manifest, folder.name)


def test_rows_go_together(tmp_path: Path) -> None:
    identities = [
        ("s3", "b", EVALUATION, 30),
        ("s1", "a", EVALUATION, 10),
        ("s2", "a", EVALUATION, 20),
        ("s4", "c", ATTACKER, 40),
    ]
    images = [
        {"sample_id": s, "identity": i, "split": split, "image": flat(v)}
        for s, i, split, v in identities
    ]
    faces = table(tmp_path / "faces", pa.Table.from_pylist(images, FACES))
    dark = [
        {**row, "image": flat(value - 5 + draw), "anonymizer": "x", "sample": draw, "seed": 0}
        for row, (_, _, _, value) in zip(images, identities, strict=True)
        for draw in (0, 1)
        if row["sample_id"] != "s2"
    ]
    raw = reconstructed_images(
        faces, table(tmp_path / "raw", pa.Table.from_pylist(dark, ANONYMIZED)), "image"
    )
    assert raw.samples == ["s1", "s3"]
    assert raw.identities.tolist() == ["a", "b"]
    assert raw.originals[:, 0, 0, 0].tolist() == [10, 30]
    assert raw.guesses.shape == (2, 1, 4, 4, 3)
    assert raw.guesses[:, 0, 0, 0, 0].tolist() == [5, 25], "the first draw"

    rebuilt = [
        {"sample_id": s, "view": view, "guesses": [flat(v), flat(v + 1)]}
        for s, v in (("s3", 31), ("s1", 11))
        for view in ("x region=face", "x")
    ]
    rebuilt[0]["guesses"] = [flat(99), flat(99)]
    guessed = reconstructed_images(
        faces, table(tmp_path / "new", pa.Table.from_pylist(rebuilt)), "guesses"
    )
    assert guessed.samples == raw.samples
    assert guessed.guesses[:, :, 0, 0, 0].tolist() == [[11, 12], [31, 32]]

    whole = grid({"raw": raw, "unet": guessed}, ["unet"], 1)
    assert whole.originals[:, 0, 0, 0].tolist() == [10]
    assert [(row.anonymizer, row.anonymized[0, 0, 0, 0]) for row in whole.rows] == [
        ("raw", 5),
        ("unet", 11),
    ]
