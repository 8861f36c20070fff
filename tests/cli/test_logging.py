import io
import logging
import sys

import pytest

from cldmray.cli.logging import TerminalHandler, setup_logging

LOG = logging.getLogger("cldmray.pipelines.audit")


def test_each_record_is_one_plain_line_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with setup_logging():
        LOG.info("%s: %d rows", "faces", 24)
        LOG.debug("not shown")
    LOG.warning("not shown by the command any more")
    assert capsys.readouterr().out == "faces: 24 rows\n"


def test_secrets_are_masked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "sesame-open-42")
    with setup_logging():
        LOG.info("cannot open %s", "s3://user:hush@bucket?token=abc")
        LOG.info("with sesame-open-42")
    out = capsys.readouterr().out
    assert "***" in out
    for secret in ("hush", "abc", "sesame"):
        assert secret not in out


def test_the_logger_is_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    with setup_logging():
        pass
    LOG.warning("seen by others")
    assert caplog.messages == ["seen by others"]
    assert logging.getLogger("cldmray").handlers == []


def test_a_terminal_shows_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    handler = TerminalHandler()
    stage = {"stage": "key", "running": True}

    def emit(text: str, **extra: object) -> None:
        handler.handle(logging.makeLogRecord({"msg": text, "levelno": logging.INFO, **extra}))

    emit("anonymize by blur ...", **stage)
    assert [task.description for task in handler._progress.tasks] == ["anonymize by blur"]
    assert stream.getvalue() == ""
    emit("anonymize by blur: 24 rows, 1.0 s", stage="key", running=False)
    assert handler._progress.tasks == []
    handler.close()
    assert "anonymize by blur: 24 rows, 1.0 s" in stream.getvalue()
