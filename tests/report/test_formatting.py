"""Sentences, names and numbers of the report: hand-written expectations."""

import pytest

from cldmray.errors import HIDDEN
from cldmray.report import formatting


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(0.0, "0.0 %"), (0.0083, "0.83 %"), (0.1243, "12.4 %"), (1.0, "100.0 %")],
)
def test_percent(rate, expected):
    assert formatting.percent(rate) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.42, "0.4 s"),
        (12.3, "12 s"),
        (59.7, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3900, "1 h 5 min"),
    ],
)
def test_duration(seconds, expected):
    assert formatting.duration(seconds) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.20963, "0.2096"),
        (1.0, "1"),
        (2.22e-16, "0"),
        (9999.96, "10000"),
        (12345.6, "12346"),
        (-3e5, "-300000"),
    ],
)
def test_number(value, expected):
    assert formatting.number(value) == expected


def test_flatten_gives_dotted_keys():
    nested = {"a": {"b": 1, "c": [True, {"d": None}]}, "e": [], "f": {}}
    expected = [("a.b", "1"), ("a.c.0", "True"), ("a.c.1.d", "None"), ("e", "[]"), ("f", "{}")]
    assert formatting.flatten(nested) == expected


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "DB_PASSWORD",
        "hf_token",
        "token",
        "aws_secret_access_key",
        "apiKey",
        "credentials",
        "passphrase",
        "authorization",
    ],
)
def test_secrets_are_masked(key):
    assert formatting.flatten({"x": {key: "swordfish"}}) == [(f"x.{key}", HIDDEN)]
    pairs = formatting.flatten({"x": {key: {"deep": "swordfish", "all": ["swordfish"]}}})
    assert {value for _, value in pairs} == {HIDDEN}


def test_only_secrets_are_masked():
    assert formatting.flatten({"tokenizer": "clip", "keypoints": 5}) == [
        ("tokenizer", "clip"),
        ("keypoints", "5"),
    ]


def test_credentials_in_urls_are_masked():
    pairs = formatting.flatten({"uri": "https://me:swordfish@host/x", "mail": "me@host"})
    assert pairs == [("uri", f"https://{HIDDEN}@host/x"), ("mail", "me@host")]


def test_names():
    assert formatting.protocol_name("few_ref") == "Few-Ref"
    assert formatting.protocol_name("custom") == "custom"
    assert formatting.gallery_name("source_excluded") == "source excluded"
    assert formatting.attacker_name("score_fusion") == "score fusion"
    assert formatting.attacker_name("mine") == "mine"
    assert formatting.measure_name("fnir_at_fpir_1e-2") == "FNIR at FPIR 1 %"
    assert formatting.measure_name("tmr_at_fmr_low") == "tmr_at_fmr_low"
