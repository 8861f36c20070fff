import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cldmray.tracking import Tracker, TrackingConfig, TrackingError
from cldmray.tracking.connection import explained, impatient, resolve_uri


def check(uri: str, timeout: float = 1.0) -> None:
    Tracker(TrackingConfig(uri=uri, timeout=timeout)).check()


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, int]]]:
    """A server's host and the HTTP status of its paths; 0 lets the client wait."""
    statuses: dict[str, int] = {}
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = statuses.get(self.path.partition("?")[0], 404)
            if status == 0:
                done.wait(20)
                status = 500
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"127.0.0.1:{httpd.server_port}", statuses
    done.set()
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_the_uri_is_the_given_one_then_the_environments_then_sqlite_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    assert resolve_uri("http://given") == "http://given"
    assert resolve_uri(None) == "http://elsewhere"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert resolve_uri(None) == f"sqlite:///{tmp_path}/mlflow.db"
    assert resolve_uri("sqlite:////a/b.db") == "sqlite:////a/b.db"


def test_a_server_that_is_not_there_is_named_within_seconds_and_without_password() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.perf_counter()
    with pytest.raises(TrackingError) as caught:
        check(f"http://me:hunter2@127.0.0.1:{port}")
    assert time.perf_counter() - start < 5
    message = str(caught.value)
    assert f"http://***@127.0.0.1:{port}" in message
    assert "MLFLOW_TRACKING_URI" in message
    assert "hunter2" not in message
    assert caught.value.__cause__ is None


def test_a_server_that_hangs_is_left_in_time(server: tuple[str, dict[str, int]]) -> None:
    host, statuses = server
    statuses["/health"] = 0
    start = time.perf_counter()
    with pytest.raises(TrackingError, match="no answer within 0.5 s"):
        check(f"http://{host}", timeout=0.5)
    assert time.perf_counter() - start < 5


def test_an_api_that_hangs_behind_a_healthy_front_is_left_in_time(
    server: tuple[str, dict[str, int]],
) -> None:
    host, statuses = server
    statuses["/health"] = 200
    statuses["/api/2.0/mlflow/experiments/get-by-name"] = 0
    tracker = Tracker(TrackingConfig(uri=f"http://me:hunter2@{host}", timeout=1))
    assert tracker.client is not None
    start = time.perf_counter()
    with pytest.raises(TrackingError) as caught:
        tracker.check()
    assert time.perf_counter() - start < 10
    assert "hunter2" not in str(caught.value)
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


@pytest.mark.parametrize(
    ("status", "formatting"), [(401, "MLFLOW_TRACKING_TOKEN"), (503, "HTTP 503")]
)
def test_a_server_that_refuses_is_explained(
    server: tuple[str, dict[str, int]], status: int, formatting: str
) -> None:
    host, statuses = server
    statuses["/health"] = status
    with pytest.raises(TrackingError, match=formatting):
        check(f"http://{host}")


def test_a_place_without_its_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=f"no such folder: {tmp_path}/absent"):
        check(f"sqlite:///{tmp_path}/absent/mlflow.db")
    with pytest.raises(TrackingError, match="is a folder"):
        check(f"sqlite:///{tmp_path}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(TrackingError, match="read-only"):
        check(f"sqlite:///{tmp_path}/mlflow.db")


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database " * 100)
    with pytest.raises(TrackingError, match="file is not a database"):
        check(f"sqlite:///{tmp_path}/mlflow.db")


def test_plain_folders_are_refused(tmp_path: Path) -> None:
    for uri in (str(tmp_path), f"file://{tmp_path}"):
        with pytest.raises(TrackingError, match="plain folders"):
            check(uri)


def test_failures_do_not_carry_the_password() -> None:
    uri = "postgresql://me:hunter2@db/runs"
    with pytest.raises(TrackingError) as caught, explained(uri):
        raise RuntimeError(f"cannot open {uri}")
    assert "hunter2" not in str(caught.value)
    assert "RuntimeError: cannot open postgresql://***@db/runs" in str(caught.value)
    assert caught.value.__suppress_context__


def test_impatience_ends_with_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    with impatient(2.0):
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "2"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
