"""Secrets reach neither errors nor anything else that is shown."""

import pickle
import time

import pytest

from cldmray.errors import (
    HIDDEN,
    BadInputError,
    ConfigError,
    StorageError,
    is_secret_key,
    redact,
    redact_text,
)


@pytest.mark.parametrize(
    "key",
    [
        "token",
        "hub.HF_TOKEN",
        "db_password",
        "clientSecret",
        "api_key",
        "apiKey",
        "AWS_ACCESS_KEY_ID",
        "storage.credentials.json",
        "signature",
    ],
)
def test_secret_keys_are_known(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize("key", ["keypoints", "monkey", "compass_width", "author", "k", "seed"])
def test_common_keys_stay(key: str) -> None:
    assert not is_secret_key(key)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:pw@host:5000/x", "https://***@host:5000/x"),
        ("postgresql://u:p@ss/w0rd#@db/runs", "postgresql://***@db/runs"),
        ("s3://bucket/a?X-Amz-Signature=ab12&part=3", "s3://bucket/a?X-Amz-Signature=***&part=3"),
        ("host=db password=hunter2 user=me", "host=db password=*** user=me"),
        ('{"token": "abc", "size": 64}', '{"token": "***", "size": 64}'),
        ("run.py --api-key hunter2 --size 64", "run.py --api-key *** --size 64"),
        ("run.py hub.token=hunter2 size=64", "run.py hub.token=*** size=64"),
        ("Authorization: Bearer abcdefgh12345", "Authorization: ***"),
        ("x hf_abcdefghijklmnopqrstuv y", "x *** y"),
        ("AKIAABCDEFGHIJKLMNOP", "***"),
        ("s3://AKIAEXAMPLE:wJalr/XUtnFEMI@bucket/faces", "s3://***@bucket/faces"),
        ("http://user:p/w@host:5000/x", "http://***@host:5000/x"),
        ("passphrase: hunter2", "passphrase: ***"),
        ("authorization=Basic dXNlcjpw", "authorization=***"),
        ("gs://bucket/a?sig=ab%2F12&token=t&page=2", "gs://bucket/a?sig=***&token=***&page=2"),
    ],
)
def test_secrets_in_text_are_hidden(text: str, expected: str) -> None:
    assert redact_text(text) == expected
    assert redact_text(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "cldm-canny-1.0+depth-0.7",
        "unknown keys: encoder.batch, hub.x",
        "https://host/a@v1",
        "sqlite:////a/mlflow.db",
        "size=64 k=10",
    ],
)
def test_harmless_text_stays(text: str) -> None:
    assert redact_text(text) == text


def test_secrets_of_the_environment_are_hidden_wherever_they_stand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", "quite-plain-words")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert redact_text("note: quite-plain-words, disabled") == f"note: {HIDDEN}, disabled"


def test_nested_values_are_copied_without_secrets() -> None:
    settings = {
        "size": 64,
        "hub": {"token": "abc", "name": "x", "use_auth": True, "key": None},
        "urls": ("http://a:b@c/", 3),
        "keys": ["k1", 7],
        "password": "",
    }
    assert redact(settings) == {
        "size": 64,
        "hub": {"token": HIDDEN, "name": "x", "use_auth": True, "key": None},
        "urls": ["http://***@c/", 3],
        "keys": [HIDDEN, HIDDEN],
        "password": "",
    }
    assert settings["password"] == ""


@pytest.mark.parametrize("kind", [BadInputError, ConfigError, StorageError])
def test_messages_of_errors_are_masked(kind: type[Exception]) -> None:
    error = kind("cannot open s3://AKIAEXAMPLE:wJalr/XUtnFEMI@bucket/a?sig=x1y2")
    assert str(error) == f"cannot open s3://{HIDDEN}@bucket/a?sig={HIDDEN}"
    assert "wJalr" not in repr(error)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error)


def test_a_changed_environment_is_seen_and_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", "first-plain-words")
    assert redact_text("first-plain-words") == HIDDEN
    monkeypatch.delenv("MY_SERVICE_TOKEN")
    assert redact_text("first-plain-words") == "first-plain-words"
    started = time.process_time()
    for rank in range(5000):
        redact_text(f"cldm-canny-1.0/adaptive_contrastive/full_ref/source_excluded/rank_{rank}")
    assert time.process_time() - started < 1.0
