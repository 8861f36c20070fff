"""Records of what anonymized images still hold of their originals, apart from who they show."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class UntouchedFaces:
    """How many images of one anonymizer still show the face that they were made from.

    An image is untouched where a public recognizer matches it with its own original above the
    threshold at which one in 1,000 pairs of different people would match, or where the pixels of
    the face have not changed by more than a grey level.

    Attributes:
        anonymizer: its name in tables.
        n_images: images that were looked at, those of evaluated people.
        n_untouched: those that match, are unchanged, or both.
        n_matched: those that match; None where no recognizer could tell.
        n_unchanged: those with unchanged pixels.
        value: ``n_untouched / n_images``, with confidence bounds ``low`` and ``high`` over
            identities, in [0, 1].
        recognizer: attacker whose embeddings were compared; None where there is none that reads
            originals and anonymized images alike, or too few originals to set its threshold.
        threshold: cosine above which two images match.
        samples: ids of some of the untouched images, sorted.
    """

    anonymizer: str
    n_images: int
    n_untouched: int
    n_matched: int | None
    n_unchanged: int
    value: float
    low: float
    high: float
    recognizer: str | None = None
    threshold: float | None = None
    samples: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class InferenceRow:
    """How well one attribute is read from one anonymizer's images of people whom nobody names.

    Attributes:
        anonymizer: its name in tables.
        attacker: whose embeddings the classifier reads.
        attribute: such as ``sex``.
        value: balanced accuracy on images of evaluated people, the mean over the attribute's values
            of the share that is read right, with confidence bounds ``low`` and ``high`` over
            identities, in [0, 1].
        chance: one over the number of values, which a classifier reaches that sees nothing.
        clean: the same on clean images, by a classifier that learnt from clean images; None where
            that was not measured.
        n_images: images of evaluated people.
        n_identities: whom they show.
        n_learnt_images: anonymized images of other people that the classifier learnt from.
    """

    anonymizer: str
    attacker: str
    attribute: str
    value: float
    low: float
    high: float
    chance: float
    clean: float | None
    n_images: int
    n_identities: int
    n_learnt_images: int
