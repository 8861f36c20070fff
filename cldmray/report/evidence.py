"""Evidence of a leak: example images beside the references that the strongest attack finds."""

import io
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from cldmray.evaluation.identification import AttackResult
from cldmray.faces.records import decode_image
from cldmray.gallery.matches import best_identities
from cldmray.gallery.scores import EmbeddingScores
from cldmray.report.formatting import attacker_name
from cldmray.report.image_grid import CELL, GAP, INK, LABEL_WIDTH, MUTED, draw_label, fit, font
from cldmray.results.audit import AnonymizerRisk, Evidence

MATCHES = 5
MOST_ANONYMIZERS = 4
SAMPLES = 2
"""Images of each anonymizer."""
FRAME = 4
MATED, NON_MATED = (31, 122, 77), (227, 231, 236)

ImageReader = Callable[[Sequence[str]], pa.Table]
"""Reads ``sample_id`` and ``image`` of some samples."""


def leak_evidence(
    risks: Sequence[AnonymizerRisk],
    attacks: Sequence[AttackResult],
    samples: Sequence[str],
    originals: ImageReader,
    anonymized: dict[str, ImageReader],
) -> list[Evidence]:
    """The best matches of example images of the anonymizers that leak, highest risk first.

    Args:
        risks: the strongest attack on each anonymizer.
        attacks: all attacks, with their scores. Attacks without embeddings, such as score
            fusion, yield nothing.
        samples: of the example images.
        originals: reads references.
        anonymized: reads the images of an anonymizer, by its name.
    """
    strongest = {
        (attack.anonymizer, attack.attacker, attack.protocol, attack.gallery): attack
        for attack in attacks
    }
    leaking = sorted((r for r in risks if r.finding == "leak"), key=lambda r: -r.risk)
    evidence = []
    for risk in leaking[:MOST_ANONYMIZERS]:
        attack = strongest[risk.anonymizer, risk.attacker, risk.protocol, risk.gallery]
        if not attack.scores or not isinstance(scores := attack.scores[0], EmbeddingScores):
            continue
        references = anonymized[risk.anonymizer] if risk.gallery == "anonymized_only" else originals
        for sample in samples[:SAMPLES]:
            matches = best_identities(scores, sample, MATCHES)
            if matches is None:
                continue
            identity = scores.identities[scores.sample_ids == sample][0]
            probe = _images(anonymized[risk.anonymizer], [sample])
            evidence.append(
                Evidence(
                    risk.anonymizer,
                    risk.attacker,
                    probe[0],
                    _images(references, matches.sample_ids[0].tolist()),
                    tuple((matches.identities[0] == identity).tolist()),
                    tuple(matches.scores[0].tolist()),
                )
            )
    return evidence


def _images(read: ImageReader, samples: Sequence[str]) -> np.ndarray:
    """Images of some samples, in their order."""
    table = read(samples)
    columns = (table[name].to_pylist() for name in ("sample_id", "image"))
    by_sample = dict(zip(*columns, strict=True))
    return np.stack([decode_image(by_sample[sample]) for sample in samples])


def evidence_figure(evidence: Sequence[Evidence]) -> bytes:
    """One row per example: the anonymized image, then its matches with their scores.

    The frame of a match that shows the image's own person is green.

    Args:
        evidence: at least one.

    Returns:
        PNG.
    """
    columns = 1 + max(len(item.matches) for item in evidence)
    line = CELL + GAP + 20
    sheet = Image.new(
        "RGB", (LABEL_WIDTH + columns * (CELL + 2 * GAP), len(evidence) * line), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for row, item in enumerate(evidence):
        top = row * line
        draw_label(draw, top, item.anonymizer, attacker_name(item.attacker))
        _paste(sheet, item.anonymized, LABEL_WIDTH, top)
        draw.text((LABEL_WIDTH, top + CELL + 2), "anonymized", fill=MUTED, font=font(13))
        for place, image in enumerate(item.matches):
            left = LABEL_WIDTH + (place + 1) * (CELL + 2 * GAP)
            _paste(sheet, image, left, top)
            colour = MATED if item.mated[place] else NON_MATED
            edge = (left - FRAME // 2, top, left + CELL + FRAME // 2, top + CELL)
            draw.rectangle(edge, outline=colour, width=FRAME)
            person = ", same person" if item.mated[place] else ""
            text = f"{item.scores[place]:.2f}{person}"
            draw.text((left, top + CELL + 2), text, fill=INK, font=font(13))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _paste(sheet: Image.Image, image: np.ndarray, left: int, top: int) -> None:
    cell = fit(image)
    sheet.paste(cell, (left + (CELL - cell.width) // 2, top + (CELL - cell.height) // 2))
