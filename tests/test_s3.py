"""Faces, artifacts, reports and checkpoints at ``s3://``, on a server that speaks S3."""

import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from cldmray import storage
from cldmray.errors import StorageError
from cldmray.faces import CelebaFaces, FolderFaces, ParquetFaces, TableFaces, WebDatasetFaces
from cldmray.faces.base import FaceSource
from cldmray.faces.synthetic import SyntheticFaces

BUCKET = "people"
ACCOUNT = "123456789012"
N_OBJECTS, OBJECTS_A_REQUEST = 10_000, 1_000


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of moto's server."""
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of that server, at which the environment points."""
    environment = {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    import boto3

    boto3.client("s3").create_bucket(Bucket=BUCKET)
    return f"s3://{BUCKET}"


def image(shade: int = 9) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), (shade,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def put(key: str, content: bytes) -> None:
    """An object of the bucket, past HTTP: the server runs in this process."""
    from moto.s3.models import s3_backends

    s3_backends[ACCOUNT]["aws"].put_object(BUCKET, key, content)


def contents(source: FaceSource) -> list[bytes | None]:
    return source.read(source.listing()["location"].to_pylist())


def test_files_of_any_name(bucket: str) -> None:
    uri = f"{bucket}/my faces/Zoë 100%.txt"
    storage.write_bytes(uri, b"hello")
    assert storage.read_bytes(uri) == b"hello" and storage.exists(uri)
    storage.delete(uri)
    assert not storage.exists(uri)


def test_places_that_cannot_be_written(bucket: str) -> None:
    storage.check_writable("output", f"{bucket}/runs/1")
    with pytest.raises(StorageError, match="^output: .*nowhere"):
        storage.check_writable("output", "s3://nowhere/runs")


def test_ten_thousand_objects_are_listed_with_few_requests(
    bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(N_OBJECTS):
        put(f"many/person {number // 10:04d}/{number % 10}.png", b"any")
    with caplog.at_level(logging.INFO, logger="werkzeug"):
        listing = FolderFaces(f"{bucket}/many").listing()
    pages = [record for record in caplog.messages if "GET" in record and "list-type" in record]
    assert len(listing) == N_OBJECTS and len(set(listing["identity"].to_pylist())) == 1_000
    assert N_OBJECTS // OBJECTS_A_REQUEST <= len(pages) <= N_OBJECTS // OBJECTS_A_REQUEST + 5


def test_every_source(bucket: str, tmp_path: Path) -> None:
    import webdataset

    for key in ("folder/Ann/1.png", "table/in/1.png", "celeba/Img/img_align_celeba/000001.jpg"):
        put(key, image())
    put("celeba/Anno/identity_CelebA.txt", b"000001.jpg 7\n")
    put("table/faces.csv", b"path,identity\nin/1.png,Ann\n")
    storage.write_table(
        f"{bucket}/parquet/1.parquet", pa.table({"identity": ["Ann"], "image": [image()]})
    )
    with webdataset.TarWriter(str(tmp_path / "1.tar")) as writer:
        writer.write({"__key__": "0", "png": image(), "json": {"identity": "Ann"}})
    put("tars/1.tar", (tmp_path / "1.tar").read_bytes())
    sources = (
        FolderFaces(f"{bucket}/folder"),
        TableFaces(f"{bucket}/table/faces.csv"),
        CelebaFaces(f"{bucket}/celeba"),
        ParquetFaces(f"{bucket}/parquet"),
        WebDatasetFaces(f"{bucket}/tars"),
        WebDatasetFaces(f"{bucket}/tars/1.tar"),
    )
    for source in sources:
        assert contents(source) == [image()]


@pytest.mark.slow
def test_an_audit_with_everything_at_s3(bucket: str, tmp_path: Path) -> None:
    faces = SyntheticFaces(n_identities=12, images_per_identity=3)
    listing = faces.listing()
    names = zip(listing["identity"].to_pylist(), listing["sample_id"].to_pylist(), strict=True)
    images = faces.read(listing["location"].to_pylist())
    for (identity, sample), content in zip(names, images, strict=True):
        put(f"faces/{identity}/{sample}.png", content or b"")
    settings = [
        *("faces=folder", f"faces.root={bucket}/faces", "faces.size=32", "faces.align=none"),
        *("splits.n_evaluation_identities=4", "splits.min_images=2"),
        *("splits.validation_fraction=0.3", "anonymizers=[blur]", "attackers=[clean_trained]"),
        *("attackers.clean_trained.training.max_steps=4", "audit.attribution=false"),
        *("audit.utility=[ssim]", "audit.n_inference_images=0", "audit.n_bootstrap=100"),
        *(f"output={bucket}/runs/first", f"cache_dir={bucket}/cache"),
        *("engine.address=local", "engine.cpus=2", "engine.object_store_mb=200"),
    ]
    result = subprocess.run(
        [sys.executable, "-c", "from cldmray.cli import main; main()", "audit", *settings],
        cwd=tmp_path,
        env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/runs.db"},
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert storage.exists(f"{bucket}/runs/first/report.html")
    assert "train clean_trained: " in result.stdout
    kept = [info.path for info in storage.list_files(f"{bucket}/cache")]
    assert any("checkpoint" in path for path in kept)
    assert not list(tmp_path.glob("runs/*"))
