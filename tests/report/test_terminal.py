"""Terminal output: 100 columns, plain text in a log, colours only on a terminal."""

import io
import json
from dataclasses import replace

import pytest

from cldmray.arrays import Interval
from cldmray.report.terminal import WIDTH, print_report, verdict_line
from cldmray.results.audit import AttackRate, Verdict
from cldmray.results.decision import Gate, Recommendation


class Terminal(io.StringIO):
    def isatty(self):
        return True


def printed(report, file=None):
    file = io.StringIO() if file is None else file
    print_report(report, file)
    return file.getvalue()


def test_each_anonymizer_has_its_row_and_the_sentence_comes_last(report):
    rate = AttackRate("pretrained", "full_ref", "source_excluded", 0.25, 0.125, 0.375, 0.01)
    decisions = dict(zip([r.anonymizer for r in report.risks], ("yes", "no"), strict=False))
    risks = [
        replace(
            risk,
            cross_image=rate._replace(value=risk.risk, low=risk.low, high=risk.high),
            linkage=rate,
            k_supported=17,
            release=decisions.get(risk.anonymizer),
            release_reason="It is so.",
            utility_kept=Interval(0.31, 0.2, 0.4),
        )
        for risk in report.risks
    ]
    text = printed(replace(report, risks=risks))
    lines = text.splitlines()
    for risk in risks:
        decision = decisions.get(risk.anonymizer, "control")
        (place,) = [
            place for place, line in enumerate(lines)
            if line.split()[:1] == [risk.anonymizer[:22]] and decision in line and "0.31" in line
        ]  # fmt: skip
        assert f"{100 * risk.risk:.1f}" in lines[place] and " 17 " in lines[place]
        assert f"{100 * risk.low:.1f}-{100 * risk.high:.1f}" in lines[place + 1]
        assert "12.5-37.5" in lines[place + 1]
    flowing = " ".join(text.split())
    assert flowing.count("It is so.") == len(risks)
    assert flowing.endswith(f"Identity leaks: {report.verdict.sentence}")
    assert "3 of 1203 files were rejected" in text


@pytest.mark.parametrize("force", ["", "1"])
def test_a_log_file_gets_plain_text_in_100_columns(report, monkeypatch, force):
    monkeypatch.setenv("COLUMNS", "40")
    if force:
        monkeypatch.setenv("FORCE_COLOR", force)
    long = replace(report.risks[0], anonymizer="cldm-" + "x" * 120, attacker="y" * 60)
    text = printed(replace(report, risks=[long, *report.risks]))
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= WIDTH


def test_a_terminal_gets_colours(report, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in printed(report, Terminal())


def test_markup_in_names_is_text(report):
    odd = replace(report.risks[0], anonymizer="[red]a[/b]", note="[bold]n[/x]")
    text = printed(replace(report, risks=[odd], notes=["[link=x]m[/link]"]))
    assert "[red]a[/b]" in text and "[bold]n[/x]" in text and "[link=x]m[/link]" in text


def test_what_follows_comes_after_the_sentence(report):
    gate = Gate("k<20 or leak", ("blur: k<20: why " + "x " * 90, "blur: leak: because"))
    recommendation = Recommendation("k_same", "It stays under 1/20. " + "Utility is low. " * 9)
    text = printed(replace(report, verdict=Verdict("People leak.", {}, recommendation, gate)))
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    flowing = " ".join(text.split())
    assert "People leak. Recommended: k_same. It stays under 1/20. Utility is low." in flowing
    assert "Utility is low. Gate failed (k<20 or leak) blur: k<20: why x x" in flowing
    assert flowing.endswith("x x blur: leak: because")
    none = Verdict("People leak.", {}, Recommendation(None, "None fits."), Gate("leak"))
    flowing = " ".join(printed(replace(report, verdict=none)).split())
    assert flowing.endswith("People leak. Recommended: none. None fits. Gate passed (leak)")


def test_the_line_for_programs_is_one_line(report):
    odd = "zo\u00eb\u2028 \n\ud800 }"
    line = verdict_line(Verdict(odd, {"b": [1, None], "a": {"z": 0.5}}))
    assert line.isascii() and len(line.splitlines()) == 1
    marker, _, text = line.partition(" ")
    assert marker == "CLDMRAY_VERDICT"
    assert text.startswith('{"a":{"z":0.5},"b":[1,null],"sentence":')
    assert json.loads(text) == {"sentence": odd, "b": [1, None], "a": {"z": 0.5}}


def test_secrets_reach_neither_the_table_nor_the_line_for_programs(report):
    uri = "s3://AKIAEXAMPLE:wJalr/XUtnFEMI@bucket/faces?token=t0k3n"
    verdict = Verdict(f"See {uri}.", {"where": uri, "passphrase": "open-sesame"})
    text = printed(replace(report, verdict=verdict, notes=[f"cannot open {uri}"]))
    text += verdict_line(verdict)
    assert "bucket/faces" in text
    assert not any(secret in text for secret in ("wJalr", "t0k3n", "open-sesame"))
