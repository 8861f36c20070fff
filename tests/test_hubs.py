"""Faces and files at ``gs://`` and ``hf://``, on stand-ins that need no network."""

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from PIL import Image
from pyarrow import fs

from cldmray import storage
from cldmray.errors import BadInputError
from cldmray.faces import FaceSource, FolderFaces, ParquetFaces
from cldmray.faces.sources.survey import recognize

BUCKET = "/storage/v1/b/people"
OBJECTS = f"{BUCKET}/o"


class Bucket(ThreadingHTTPServer):
    """As much of Google's storage API as Arrow asks for, with one bucket in memory."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Requests)
        self.objects: dict[str, bytes] = {}


class Requests(BaseHTTPRequestHandler):
    server: Bucket

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        name = unquote(url.path.removeprefix(OBJECTS).removeprefix("/"))
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        objects = self.server.objects
        if url.path == BUCKET:
            self._respond(200, b'{"kind": "storage#bucket", "id": "people", "name": "people"}')
        elif not url.path.startswith(OBJECTS) or (name and name not in objects):
            self._respond(404, b"{}")
        elif not name:
            listed = [key for key in sorted(objects) if key.startswith(query.get("prefix", ""))]
            self._respond(200, json.dumps({"items": [self._about(key) for key in listed]}).encode())
        elif query.get("alt") == "media":
            self._respond(200, objects[name])
        else:
            self._respond(200, json.dumps(self._about(name)).encode())

    def do_POST(self) -> None:
        """Begin an upload, or make the empty object that stands for a folder."""
        query = parse_qs(urlsplit(self.path).query)
        name = query["name"][0]
        if query["uploadType"] == ["resumable"]:
            place = f"http://{self.headers['Host']}/upload?name={quote(name, safe='')}"
            self._respond(200, b"{}", Location=place)
            return
        self.server.objects[name] = b""
        self._respond(200, json.dumps(self._about(name)).encode())

    def do_PUT(self) -> None:
        name = parse_qs(urlsplit(self.path).query)["name"][0]
        self.server.objects[name] = self.rfile.read(int(self.headers["Content-Length"]))
        self._respond(200, json.dumps(self._about(name)).encode())

    def _about(self, name: str) -> dict[str, object]:
        """The object's metadata; Arrow marks those that stand for folders."""
        now = "2026-01-01T00:00:00Z"
        return {
            "kind": "storage#object",
            "bucket": "people",
            "name": name,
            "size": str(len(self.server.objects[name])),
            "generation": "1",
            "updated": now,
            "timeCreated": now,
            "metadata": {"arrow/gcsfs": "directory"} if name.endswith("/") else {},
        }

    def _respond(self, status: int, content: bytes, **headers: str) -> None:
        self.rfile.read(0 if self.command == "PUT" else int(self.headers["Content-Length"] or 0))
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with Bucket() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{running.server_port}"
        monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", address)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield running
        running.shutdown()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that stands in for the hub."""
    directory = DirFileSystem(str(tmp_path), LocalFileSystem())
    monkeypatch.setattr(huggingface_hub, "HfFileSystem", lambda: directory)
    return tmp_path


def image(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), (shade,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def test_faces_and_files_at_google(bucket: Bucket) -> None:
    root = "gs://anonymous@people/my faces"
    assert storage.resolve(root)[0].type_name == "gcs"
    assert storage.resolve(root)[1] == "people/my faces"
    for name, shade in (("Ann", 7), ("Zoë", 9)):
        storage.write_bytes(f"{root}/{name}/1.png", image(shade))
    files = sorted(name for name in bucket.objects if not name.endswith("/"))
    assert files == ["my faces/Ann/1.png", "my faces/Zoë/1.png"]
    assert storage.exists(f"{root}/Ann/1.png") and not storage.exists(f"{root}/Ann/2.png")
    source = recognize(root).source
    assert source == FolderFaces(root)
    assert contents(source) == {"Ann": image(7), "Zoë": image(9)}


def test_a_storage_that_does_not_answer_is_named_within_a_minute(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "RETRY_SECONDS", 1)
    bucket.shutdown()
    bucket.server_close()
    with pytest.raises(BadInputError, match=r"^faces\.root: cannot list gs://\*\*\*@people/x"):
        FolderFaces("gs://anonymous@people/x").listing()


def test_faces_on_the_hub(hub: Path) -> None:
    root = "hf://datasets/me/faces"
    filesystem, path = storage.resolve(f"{root}/data")
    assert isinstance(filesystem, fs.PyFileSystem) and path == "datasets/me/faces/data"
    table = pa.table({"identity": ["Ann", "Zoë"], "image": [image(7), image(9)]})
    (hub / "datasets/me/faces/data").mkdir(parents=True)
    pq.write_table(table, hub / "datasets/me/faces/data/train-0.parquet")
    source = recognize(root).source
    assert source == ParquetFaces(root)
    assert contents(source) == {"Ann": image(7), "Zoë": image(9)}


def contents(source: FaceSource) -> dict[str, bytes | None]:
    """Content of the one file of each person."""
    listing = source.listing()
    read = source.read(listing["location"].to_pylist())
    return dict(zip(listing["identity"].to_pylist(), read, strict=True))
