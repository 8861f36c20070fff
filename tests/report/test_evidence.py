"""Evidence shows the images that the strongest attack matched, in its order."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from cldmray.evaluation.identification import AttackResult
from cldmray.faces.records import encode_image
from cldmray.gallery.protocols import EmbeddingSet
from cldmray.gallery.scores import EmbeddingScores
from cldmray.report.examples import HITS, MATCHES, MISSES, ReportSettings, leak_evidence
from cldmray.report.html import render_html

SAMPLES = [f"s{number}" for number in range(12)]
IDENTITIES = [f"person {number // 2}" for number in range(12)]


def reader(first, side=lambda sample: 8):
    """Images of one grey value each: ``first`` plus the sample's number."""

    def read(samples):
        images = [
            encode_image(
                np.full((side(sample), side(sample), 3), first + int(sample[1:]), np.uint8)
            )
            for sample in sorted(samples)
        ]
        return pa.table({"sample_id": sorted(samples), "image": images})

    return read


@pytest.fixture
def attack(report):
    risk = report.ranked_risks[0]
    values = np.random.default_rng(0).normal(size=(12, 8))
    vectors = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    views = EmbeddingSet(np.array(SAMPLES), np.array(IDENTITIES), vectors)
    scores = EmbeddingScores(views, views, risk.protocol, risk.gallery)
    return AttackResult.of(risk.anonymizer, risk.attacker, risk.protocol, risk.gallery, scores)


def collect(report, attack, risks=None):
    risks = report.ranked_risks[:1] if risks is None else risks
    return leak_evidence(risks, [attack], reader(0), {attack.anonymizer: reader(100)})


def number(image):
    """Which sample an image of :func:`reader` is of."""
    return int(image[0, 0, 0]) % 100


def test_identified_images_come_first_each_of_another_person(report, attack):
    evidence = collect(report, attack)
    listed = [number(item.anonymized) for item in evidence]
    assert len({IDENTITIES[sample] for sample in listed}) == len(listed)
    identified = [item.rank == 1 for item in evidence]
    assert identified == sorted(identified, reverse=True)
    assert sum(identified) <= HITS and len(listed) - sum(identified) <= MISSES
    wins = {s for s, rate in zip(attack.ranks.sample_ids, attack.rank_1, strict=True) if rate == 1}
    assert all(
        (f"s{sample}" in wins) == won for sample, won in zip(listed, identified, strict=True)
    )


def test_matches_stand_in_the_order_of_the_scores(report, attack):
    scores = attack.scores[0]
    (block,) = scores.blocks()
    evidence = collect(report, attack)
    assert evidence
    for item in evidence:
        sample = number(item.anonymized)
        row = scores.sample_ids.tolist().index(f"s{sample}")
        assert number(item.original) == sample and item.anonymized[0, 0, 0] >= 100
        order = np.argsort(-block.scores[row], kind="stable")
        names = [IDENTITIES[number(image)] for image in item.matches]
        assert names == scores.gallery_identities[order[:MATCHES]].tolist()
        assert list(item.mated) == [name == IDENTITIES[sample] for name in names]
        assert sample not in [number(image) for image in item.matches]
        assert list(item.scores) == sorted(item.scores, reverse=True)
        own = scores.gallery_identities[order].tolist().index(IDENTITIES[sample])
        ordered = block.scores[row][order]
        assert item.rank == own + 1
        assert item.margin == pytest.approx(ordered[own] - np.delete(ordered, own).max(), abs=1e-6)
        assert (item.margin > 0) == (item.rank == 1)


def test_references_of_several_sources_may_differ_in_size(report, attack):
    mixed = reader(0, lambda sample: 8 if sample < "s5" else 12)
    risks, tables = report.ranked_risks[:1], {attack.anonymizer: reader(100)}
    evidence = leak_evidence(risks, [attack], mixed, tables)
    for item, other in zip(evidence, collect(report, attack), strict=True):
        assert item.matches.shape[1] in (8, 12)
        assert list(map(number, item.matches)) == list(map(number, other.matches))


def test_what_does_not_leak_or_has_no_embeddings_is_left_out(report, attack):
    calm = replace(report.ranked_risks[0], low=0.0)
    assert collect(report, attack, [calm]) == []
    control = replace(report.ranked_risks[0], is_control=True)
    assert collect(report, attack, [replace(control, release=None)]) == []
    named = collect(report, attack, [replace(control, release="no")])
    assert len(named) == len(collect(report, attack)) > 0
    assert collect(report, replace(attack, scores=())) == []


def test_the_attack_with_another_image_is_shown_rather_than_a_stronger_one(report, attack):
    excluded = replace(attack, gallery="source_excluded")
    included = replace(attack, gallery="source_included", attacker="a")
    tables = {attack.anonymizer: reader(100)}
    evidence = leak_evidence(report.ranked_risks[:1], [included, excluded], reader(0), tables)
    assert {item.gallery for item in evidence} == {"source_excluded"}
    evidence = leak_evidence(report.ranked_risks[:1], [included], reader(0), tables)
    assert {item.attacker for item in evidence} == {"a"}


@pytest.mark.parametrize(
    ("asked", "synthetic", "listed"),
    [(None, True, True), (None, False, False), (True, False, True), (False, True, False)],
)
def test_real_people_are_shown_only_on_request(asked, synthetic, listed):
    assert ReportSettings(evidence=asked).shows_evidence(synthetic) == listed


def test_the_page_shows_the_image_its_original_and_whom_it_was_taken_for(report, attack):
    evidence = collect(report, attack)
    hit, miss = evidence[0], replace(evidence[0], rank=7, margin=-0.25, mated=(False, False, False))
    hit = replace(hit, rank=1, margin=0.125, mated=(True, False, False))
    page = render_html(replace(report, evidence=[hit, miss]), {})
    section = page[page.index('<section id="evidence">') : page.index('<section id="matrix">')]
    assert section.count("<img") == 2 * (2 + MATCHES)
    assert section.count('class="own"') == 1 and section.count('class="card hit"') == 1
    assert "margin +0.12" in section and "not identified: rank 7" in section
    assert all(f"{score:.2f}" in section for score in hit.scores)
    assert '<section id="evidence">' not in render_html(report, {})
