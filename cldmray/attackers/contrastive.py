"""Attackers whose encoder learns by contrast: two images of one identity are to be nearest."""

from cldmray.attackers.encoder_attacker import ConditionMapAttacker, EncoderAttacker, Query
from cldmray.settings import checked_dataclass


@checked_dataclass
class CleanTrained(EncoderAttacker):
    """Contrastive encoder trained on clean images of other people.

    It knows nothing of the anonymizer: its pairs are two originals of one identity.

    >>> CleanTrained().query, CleanTrained().learns_from_anonymized
    ('image', False)
    """

    @property
    def query(self) -> Query:
        return "image"


@checked_dataclass
class ConditionOnly(ConditionMapAttacker, EncoderAttacker):
    """The paper's black-box attack: knows which condition is used, never the model or its output.

    Its pairs are an original's condition map and an original of the same identity. Probes are read
    through the same extractor.
    """

    @property
    def query(self) -> Query:
        return "condition"


@checked_dataclass
class AdaptiveContrastive(EncoderAttacker):
    """The paper's main attack: can query the anonymizer with images of other people.

    Its pairs are an anonymized image and an original of the same identity.

    >>> AdaptiveContrastive(init_from=CleanTrained()).prerequisites[0].name
    'clean_trained'
    """

    @property
    def query(self) -> Query:
        return "anonymized"
