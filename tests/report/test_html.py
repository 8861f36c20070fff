"""The page shows every number, loads nothing, and escapes what comes from data."""

import base64
import hashlib
import html
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cldmray.arrays import Interval
from cldmray.errors import HIDDEN
from cldmray.faces.records import REJECTED
from cldmray.report import formatting
from cldmray.report.html import SECTIONS, render_html, report_figures, write_report
from cldmray.results.audit import AttackRate, DataSummary, Grid, Verdict
from cldmray.results.decision import Gate, Recommendation
from cldmray.storage import read_table

VOID = {"meta", "img", "br", "input"}


class Page(HTMLParser):
    """Collects tags, visible text and unbalanced tags."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def no_figures():
    return {}


def test_every_number_is_shown(report, no_figures):
    page = render_html(report, no_figures)
    for risk in report.risks:
        listed = (risk.cross_image, risk.same_image, risk.person_level, risk.linkage)
        for attack in (attack for attack in listed if attack):
            for rate in (attack.value, attack.low, attack.high):
                assert formatting.percent(rate) in page
        assert formatting.rejected_k(risk) in page
    for row in report.results.to_pylist():
        for name in ("value", "ci_low", "ci_high"):
            assert formatting.number(row[name]) in page
    assert page.count("not measured") >= len(report.risks)
    assert "1,200 of 1,203 files audited" in page
    assert report.data_fingerprint in page
    assert "12 min 34 s" in page and "reused from an earlier run" in page
    assert "attackers.adaptive_contrastive.encoder.batch" in page and "128" in page
    assert f"<code>{report.versions['commit']}</code>" in page


def test_parts_have_a_table_of_their_own(report, no_figures):
    assert "Groups of people" not in render_html(report, no_figures)
    index = report.results.column_names.index("subset")
    names = pa.array(["sex=<b>f</b>"] + ["all"] * (report.results.num_rows - 1))
    results = report.results.set_column(index, "subset", names)
    page = render_html(replace(report, results=results), no_figures)
    assert "Groups of people and parts of images (1 rows)" in page
    assert page.count("<td>sex: &lt;b&gt;f&lt;/b&gt;</td>") == 1
    assert page.count("<th>part</th>") == 1


def test_the_verdict_comes_first_and_is_coloured(report, no_figures):
    page = render_html(report, no_figures)
    assert page.index(report.verdict.sentence) < page.index("<section")
    assert '<div class="verdict leak">' in page
    calm = replace(report, verdict=Verdict("All well.", {}))
    assert '<div class="verdict neutral">' in render_html(calm, no_figures)


def test_what_follows_stands_in_the_verdict_block(report, no_figures):
    recommendation = Recommendation("<b>k</b>", "It stays <under> 1/20.")
    gate = Gate("k<20 or leak", ("blur: k<20: it is 2", "<i>: leak: above chance"))
    with_gate = replace(
        report, verdict=Verdict("People leak.", {"severity": "leak"}, recommendation, gate)
    )
    text = render_html(with_gate, no_figures)
    block = text[text.index('<div class="verdict leak">') : text.index("<section")]
    visible = " ".join(Page(block).text.split())
    assert visible == (
        "Identity leaks People leak. Recommended: <b>k</b>. It stays <under> 1/20. Gate failed "
        "audit.fail_on: k<20 or leak blur: k<20: it is 2 <i>: leak: above chance"
    )
    assert '<span class="pill leak">Gate failed</span>' in block
    passed = replace(with_gate.verdict, recommendation=Recommendation(None, "x"), gate=Gate("leak"))
    text = render_html(replace(report, verdict=passed), no_figures)
    assert '<span class="pill no_leak_found">Gate passed</span>' in text
    assert "<b>Recommended: <bdi>none</bdi>.</b>" in text
    assert "Gate " not in render_html(report, no_figures)


def test_the_page_loads_nothing(report):
    text = render_html(report)
    page = Page(text)
    assert not page.open
    assert not {"link", "iframe", "object", "embed"} & set(page.tags)
    sources = [value for name, value in page.attributes if name in ("src", "srcset")]
    assert len(sources) == 7 * 6
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    links = [value for name, value in page.attributes if name in ("href", "xlink:href")]
    ids = [value for name, value in page.attributes if name == "id"]
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    assert len(set(ids)) == len(ids)
    assert "http://" not in text and "https://" not in text
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style


def test_the_one_script_is_named_by_its_hash(report, no_figures):
    page = render_html(report, no_figures)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy"\s+content="([^"]*)"', html.unescape(page))[1]
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    assert "innerHTML" not in script and "eval" not in script


def test_figures_are_drawn_in_the_page(report):
    figures = report_figures(report)
    assert set(figures) == {"cmc.svg", "det.svg"}
    assert render_html(report, figures).count("<svg") == 2


def test_images_are_embedded_whole(report, no_figures):
    embedded = re.findall(r"base64,([A-Za-z0-9+/=]+)", render_html(report, no_figures))
    listed = {
        np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))).tobytes() for text in embedded
    }
    rows = [image for row in report.grid.rows for image in (row.anonymized, row.condition)]
    images = [report.grid.originals, *(stack for stack in rows if stack is not None)]
    assert listed == {image.tobytes() for stack in images for image in stack}


def test_every_section_has_its_heading_and_its_link(report, no_figures):
    page = render_html(report, no_figures)
    sections = re.findall(r'<section id="(\w+)">\n<h2>([^<]+)</h2>', page)
    assert [name for name, _ in sections] == [name for name in SECTIONS if f'"{name}"' in page]
    assert {"caveats", "matrix", "methods", "terms", "reproduce", "results"} <= set(dict(sections))
    assert "utility" not in dict(sections), "nothing was measured"
    assert re.findall(r'<a href="#(\w+)">([^<]+)</a></li>', page) == sections


def test_the_first_table_decides(report, no_figures):
    rate = AttackRate("pretrained", "full_ref", "source_excluded", 0.25, 0.125, 0.375, 0.01)
    risks = [
        replace(risk, cross_image=rate, release=release, release_reason=f"Because of {release}.")
        for risk, release in zip(report.risks, ("yes", "no", "inconclusive"), strict=False)
    ]
    risks[0] = replace(
        risks[0], utility_kept=Interval(0.02, -0.1, 0.14), keeps_nothing=True, k_supported=26
    )
    control = replace(report.risks[3], is_control=True)
    recommended = Recommendation(risks[0].anonymizer, "It passes.")
    verdict = Verdict("They leak.", {"rule": "Release: yes where it may be."}, recommended)
    page = render_html(replace(report, risks=[control, *risks], verdict=verdict), no_figures)
    table = page[page.index('<table class="risks">') : page.index("</table>")]
    visible = " ".join(Page(table).text.split())
    for decision in ("yes", "no", "inconclusive"):
        assert f">{decision}</span>" in table and f"Because of {decision}." in visible
    assert visible.index(risks[0].anonymizer) < visible.index(control.anonymizer + " control")
    assert "25.0 % 12.5 % to 37.5 %" in visible and "k = 26 none rejected" in visible
    assert "0.02 -0.10 to 0.14" in visible and "Keeps no more of the original" in visible
    whole = " ".join(Page(page).text.split())
    assert "It is useless." in whole and "Rule. Release: yes where it may be." in whole
    useful = replace(risks[0], keeps_nothing=False)
    page = render_html(replace(report, risks=[useful], verdict=verdict), no_figures)
    assert "It is useless." not in page


def test_one_rate_has_one_interval(report, no_figures):
    attack = report.risks[0].strongest_attack
    risk = replace(report.risks[0], cross_image=attack._replace(low=0.0123, high=0.0789))
    page = render_html(replace(report, risks=[risk]), no_figures)
    assert page.count("0.0123 to 0.0789*") == 1
    assert page.count("1.2 % to 7.9 %") == 1


def test_whose_images_they_are_stands_first(report, no_figures):
    data = DataSummary("lfw", False, 100, 911, 2400, 0)
    page = render_html(replace(report, data=data), no_figures)
    facts = " ".join(Page(page[: page.index('<div class="verdict')]).text.split())
    assert "data lfw (real people): 100 people, 911 images under attack" in facts
    page = render_html(replace(report, data=data._replace(synthetic=True)), no_figures)
    assert "synthetic people, who do not exist" in page


def test_how_to_make_it_again(report, no_figures):
    again = replace(report, command="cldmray audit a=1", mlflow="http://h:5000, run 3f2a")
    page = render_html(again, no_figures)
    assert "<code>cldmray audit a=1</code>" in page
    assert '<a href="http://h:5000/#/runs/3f2a">http://h:5000, run 3f2a</a>' in page
    assert f"<code>{report.versions['commit']}</code>" in page
    dirty = replace(again, mlflow="sqlite:///m.db, run 3f2a", versions={"commit": "1f-dirty"})
    page = render_html(dirty, no_figures)
    assert "<code>sqlite:///m.db, run 3f2a</code>" in page
    assert "with changes that were not committed" in page
    assert "started from Python" in render_html(replace(report, versions={}), no_figures)


def test_names_are_escaped(report, no_figures):
    hostile = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    first = replace(report.risks[0], anonymizer=hostile, attacker=hostile, note=hostile)
    results = report.results.set_column(0, "anonymizer", pa.array([hostile] * 228))
    attacked = replace(
        report,
        title=hostile,
        verdict=Verdict(hostile, {"severity": hostile, "name": hostile}),
        risks=[first],
        results=results.slice(0, 1),
        notes=[hostile],
        settings={hostile: hostile},
        versions={hostile: hostile},
        stages=[report.stages[0]._replace(name=hostile)],
        rejected=pa.Table.from_pylist(
            [dict.fromkeys(REJECTED.names, hostile)] * 2, schema=REJECTED
        ),
    )
    text = render_html(attacked, no_figures)
    page = Page(text)
    assert page.tags.count("script") == 1 and not any("onerror" in text for text in page.attributes)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert page.text.count(hostile) >= 12


def test_rejected_files_are_counted_and_listed(report, no_figures):
    text = render_html(report, no_figures)
    for row in report.rejected.to_pylist():
        assert html.escape(row["location"], quote=False) in text
    assert re.search(r'truncated file</td><td class="n">2<', text)
    assert "3 of 1,203 files" in text
    clean = replace(report, rejected=report.rejected.slice(0, 0))
    assert "None of 1,203." in render_html(clean, no_figures)


def test_a_long_list_of_rejected_files_is_cut(report, no_figures):
    rows = [dict.fromkeys(REJECTED.names, f"file {i}") for i in range(501)]
    many = replace(report, rejected=pa.Table.from_pylist(rows, schema=REJECTED))
    text = render_html(many, no_figures)
    assert "The first 500 are shown" in text
    assert ">file 499</bdi>" in text and ">file 500</bdi>" not in text


SECRETS = {
    "root": "s3://AKIAEXAMPLE:wJalr/XUtnFEMI@bucket/faces",
    "tracking": {"uri": "http://user:p/w4real@host:5000", "passphrase": "open-sesame"},
    "headers": {"authorization": "Basic c2VzYW1l"},
    "links": ["gs://bucket/a?sig=ab%2F12&token=t0k3n"],
}
LEAKED = ("wJalr", "XUtnFEMI", "p/w4real", "open-sesame", "c2VzYW1l", "ab%2F12", "t0k3n")


def test_secrets_do_not_reach_the_page(report, no_figures):
    page = render_html(report, no_figures)
    assert "swordfish" not in page and "key:hidden" not in page
    assert HIDDEN in page
    uris = [SECRETS["root"], SECRETS["tracking"]["uri"], SECRETS["links"][0]]
    leaky = replace(
        report,
        settings=SECRETS,
        title=f"audit of {uris[0]}",
        notes=[f"read from {uri}" for uri in uris],
        verdict=Verdict(f"see {uris[1]}", {"severity": "leak", "passphrase": "open-sesame"}),
        risks=[replace(report.risks[0], note=f"cannot open {uris[2]}")],
        rejected=pa.Table.from_pylist(
            [dict.fromkeys(REJECTED.names, f"{uri}/a.png") for uri in uris], schema=REJECTED
        ),
    )
    page = html.unescape(render_html(leaky, no_figures))
    assert not [secret for secret in LEAKED if secret in page]


def test_an_empty_audit_still_has_a_page(report):
    nothing = replace(
        report,
        risks=[],
        curves=[],
        results=report.results.slice(0, 0),
        grid=Grid(report.grid.originals[:0], []),
        stages=[],
        notes=[],
        settings={},
        versions={},
        data_fingerprint="",
    )
    page = Page(render_html(nothing))
    assert "img" not in page.tags and not page.open
    assert "Examples" not in page.text and "All results" not in page.text
    assert report.verdict.sentence in page.text


FILES = {
    "results.parquet",
    "results.json",
    "rejected.parquet",
    "images.parquet",
    "report.json",
    "verdict.json",
    "report.html",
    "figures/cmc.svg",
    "figures/det.svg",
}


def content(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_all_files_are_written(report, tmp_path):
    written = write_report(report, str(tmp_path))
    assert set(content(tmp_path)) == FILES
    assert written[-1].endswith("report.html")
    assert {path.removeprefix(f"{tmp_path}/") for path in written} == FILES
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert verdict == {"sentence": report.verdict.sentence, **report.verdict.machine}
    assert read_table(str(tmp_path / "rejected.parquet")).equals(report.rejected)


def test_a_rerun_writes_the_same_bytes(report, tmp_path):
    write_report(report, str(tmp_path / "a"))
    write_report(report, str(tmp_path / "b"))
    assert content(tmp_path / "a") == content(tmp_path / "b")
