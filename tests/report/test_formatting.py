"""Sentences, names and numbers of the report: hand-written expectations."""

from dataclasses import replace

import pytest

from cldmray.errors import HIDDEN
from cldmray.report import formatting


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ((0.124, 0.01), ["12 of 100", "1 of 100"]),
        ((0.124, 0.002), ["124 of 1,000", "2 of 1,000"]),
        ((0.0, 0.01), ["0 of 100", "1 of 100"]),
        ((1.0, 0.5), ["100 of 100", "50 of 100"]),
        ((0.998, 0.5), ["998 of 1,000", "500 of 1,000"]),
        ((0.5, 0.0002), ["5,000 of 10,000", "2 of 10,000"]),
        ((0.5, 1e-7), ["5,000 of 10,000", "0 of 10,000"]),
    ],
)
def test_out_of(rates, expected):
    assert formatting.out_of(*rates) == expected


def test_risk_sentence(report):
    risk = replace(report.risks[0], risk=0.12, chance=0.01)
    expected = "The person is identified in 12 of 100 images; chance is 1 of 100."
    assert formatting.risk_sentence(risk) == expected


@pytest.mark.parametrize(
    ("k_not_rejected", "expected"),
    [
        (1, "Every claim of k-anonymity is rejected, even k = 2."),
        (3, "Claims of k-anonymity above k = 3 are rejected."),
        (120, "No claim of k-anonymity up to the gallery's 120 people is rejected."),
    ],
)
def test_k_sentence(report, k_not_rejected, expected):
    assert (
        formatting.k_sentence(replace(report.risks[0], k_not_rejected=k_not_rejected)) == expected
    )


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
    [(0.20963, "0.2096"), (1.0, "1"), (2.22e-16, "0"), (12345.6, "1.235e+04")],
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
