"""Evidence shows the images that the strongest attack matched, in its order."""

import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cldmray.evaluation.identification import AttackResult
from cldmray.faces.records import encode_image
from cldmray.gallery.protocols import EmbeddingSet
from cldmray.gallery.scores import EmbeddingScores
from cldmray.report.examples import MATCHES, leak_evidence
from cldmray.report.examples import SAMPLES as SAMPLES_SHOWN
from cldmray.report.html import render_html, report_figures
from cldmray.report.image_grid import MATED, evidence_figure

SAMPLES = [f"s{number}" for number in range(12)]
IDENTITIES = [f"person {number // 2}" for number in range(12)]


def reader(first):
    """Images of one grey value each: ``first`` plus the sample's number."""

    def read(samples):
        images = [
            encode_image(np.full((8, 8, 3), first + int(sample[1:]), np.uint8))
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
    tables = {attack.anonymizer: reader(100)}
    return leak_evidence(risks, [attack], SAMPLES, reader(0), tables)


def test_matches_stand_in_the_order_of_the_scores(report, attack):
    evidence = collect(report, attack)
    assert len(evidence) == SAMPLES_SHOWN
    scores = attack.scores[0]
    (block,) = scores.blocks()
    for row, item in enumerate(evidence):
        assert item.anonymized[0, 0, 0] == 100 + row
        order = np.argsort(-block.scores[row], kind="stable")[:MATCHES]
        names = [IDENTITIES[image[0, 0, 0]] for image in item.matches]
        assert names == scores.gallery_identities[order].tolist()
        assert list(item.mated) == [name == IDENTITIES[row] for name in names]
        assert SAMPLES[row] not in [SAMPLES[image[0, 0, 0]] for image in item.matches]
        assert list(item.scores) == sorted(item.scores, reverse=True)


def test_what_does_not_leak_or_has_no_embeddings_is_left_out(report, attack):
    calm = replace(report.ranked_risks[0], low=0.0)
    assert collect(report, attack, [calm]) == []
    assert collect(report, replace(attack, scores=())) == []


def test_the_figure_frames_the_right_person_and_is_on_the_page(report, attack):
    evidence = collect(report, attack)
    evidence[0] = replace(evidence[0], mated=(True,) + (False,) * 4)
    image = np.asarray(Image.open(io.BytesIO(evidence_figure(evidence))))
    assert (image == MATED).all(axis=2).any()
    with_evidence = replace(report, evidence=evidence)
    assert "evidence" in report_figures(with_evidence) and "evidence" not in report_figures(report)
    assert "Best matches" in render_html(with_evidence) and "Best matches" not in render_html(
        report, {}
    )
