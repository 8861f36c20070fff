"""Linear probes that read attributes such as sex and age from pictures, trained on photographs.

Source of the idea: Alain and Bengio, "Understanding intermediate layers using linear classifier
probes", 2016; here the layer is the small picture itself, so that no attacker need be trained.
"""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cldmray import storage
from cldmray.engine.tables import StageTable
from cldmray.faces.records import ATTACKER, Pictures, decode_pictures
from cldmray.hashing import unit_hash

Floats = npt.NDArray[np.float64]

SIDE = 16
"""Pixels that a probe sees a side. On 500 rendered photographs of 100 unknown people, 16 gave 80 %
for sex, 59 % for age and 56 % for skin tone (guessing: 53, 35, 18 %), as much as 32."""
INVERSE_PENALTY = 0.1
MOST_PICTURES = 5000
MOST_STEPS = 300


class Probe(NamedTuple):
    """A fitted multinomial logistic regression on small pictures.

    Attributes:
        attribute: what it reads, such as ``sex``.
        classes: its values, K >= 2.
        weights, bias: shapes (K, features), (K,); the highest score wins.
    """

    attribute: str
    classes: list[str]
    weights: Floats
    bias: Floats

    def read(self, features: Floats) -> list[str]:
        """The value seen in each row of :func:`small_pictures`, length N."""
        best = (features @ self.weights.T + self.bias).argmax(1)
        return [self.classes[place] for place in best]


def small_pictures(pictures: Pictures) -> Floats:
    """Pictures (N, h, w, 3) as features: averaged to ``SIDE`` pixels a side, 0..1, one row each."""
    small = [cv2.resize(p, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for p in pictures]
    return np.asarray(small, np.float64).reshape(len(pictures), 3 * SIDE**2) / 255


def fit_probe(attribute: str, features: Floats, labels: list[str]) -> Probe | None:
    """Fit one probe; None where all labels are the same or there are none.

    Args:
        features: rows of :func:`small_pictures`, shape (N, features).
        labels: value of each row, length N.
    """
    from sklearn.linear_model import LogisticRegression

    classes = sorted(set(labels))
    if len(classes) < 2:
        return None
    centre, spread = features.mean(0), features.std(0) + 1e-6
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=MOST_STEPS)
    model.fit((features - centre) / spread, np.asarray(labels))
    weights, bias = np.asarray(model.coef_, np.float64), np.asarray(model.intercept_, np.float64)
    if len(classes) == 2:
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    weights = weights / spread
    return Probe(
        attribute, [str(name) for name in model.classes_], weights, bias - weights @ centre
    )


def fit_probes(faces: StageTable, groups: pa.Table) -> list[Probe]:
    """A probe for each attribute, fitted on clear photographs of the attacker's people.

    At most ``MOST_PICTURES`` of them are used, chosen by a hash of their sample id.

    Args:
        faces: the faces table.
        groups: column ``identity``, and one of text for each attribute; null where unknown.
    """
    columns = ["sample_id", "identity", "split", "image"]
    tables = (storage.read_table(uri, columns) for uri in faces.uris)
    photos = pa.concat_tables(
        [table.filter(pc.equal(table["split"], ATTACKER)) for table in tables]
    ).to_pylist()
    photos = sorted(photos, key=lambda row: unit_hash("attribute probe", row["sample_id"]))
    del photos[MOST_PICTURES:]
    features = small_pictures(decode_pictures(row["image"] for row in photos))
    probes = []
    for attribute in (name for name in groups.column_names if name != "identity"):
        value = dict(
            zip(groups["identity"].to_pylist(), groups[attribute].to_pylist(), strict=True)
        )
        known = [i for i, row in enumerate(photos) if value.get(row["identity"]) is not None]
        labels = [value[photos[i]["identity"]] for i in known]
        probe = fit_probe(attribute, features[known], labels)
        if probe is not None:
            probes.append(probe)
    return probes
