"""What a classifier that learnt from anonymized images of other people reads: sex, age, skin tone.

Inference is a risk of its own (Article 29 Working Party, Opinion 05/2014): an image that identifies
nobody may still say what somebody is. The classifier is a logistic regression on an attacker's
embeddings, fitted on anonymized images of attacker people, so that it knows the anonymizer's style.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cldmray.recognizers.base import Embeddings

INVERSE_PENALTY = 0.1
MOST_STEPS = 500

Flags = npt.NDArray[np.bool_]


class Labelled(NamedTuple):
    """Embeddings of images (N, d), and the value of an attribute that each shows, length N."""

    embeddings: Embeddings
    values: Sequence[str]


def read_attribute(learnt: Labelled, probes: Labelled) -> Flags | None:
    """Whether the classifier reads the true value of each probe, shape (P,).

    >>> left, right = np.float32([[1, 0]]), np.float32([[0, 1]])
    >>> learnt = Labelled(np.concatenate([left, right]), ["old", "young"])
    >>> read_attribute(learnt, Labelled(right, ["young"])).tolist()
    [True]

    Args:
        learnt: images of people whom the attacker knows.
        probes: images of other people.

    Returns:
        None where there is no probe, or the attacker's images show one value only.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(set(learnt.values)) < 2 or not len(probes.values):
        return None
    model = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=INVERSE_PENALTY, class_weight="balanced", max_iter=MOST_STEPS),
    )
    model.fit(learnt.embeddings, np.asarray(learnt.values))
    read: Flags = model.predict(probes.embeddings) == np.asarray(probes.values)
    return read
