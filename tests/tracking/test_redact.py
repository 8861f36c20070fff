import pytest

from cldmray.errors import HIDDEN, is_secret_key, redact, redact_text


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
    ],
)
def test_secrets_in_text_are_hidden(text: str, expected: str) -> None:
    assert redact_text(text) == expected
    assert redact_text(expected) == expected


@pytest.mark.parametrize(
    "text",
    ["cldm-canny-1.0+depth-0.7", "https://host/a@v1", "sqlite:////a/mlflow.db", "size=64 k=10"],
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
