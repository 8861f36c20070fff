"""Risks and measures of utility that a test writes down."""

from cldmray.results.audit import AnonymizerRisk, UtilityRow

WEAK = "attacker too weak to conclude: it names 40.0 %"


def risk(
    name: str, high: float, value: float = 0.01, low: float = 0.005, k_not_rejected: int = 100
) -> AnonymizerRisk:
    """The risk of an anonymizer, by an adaptive attacker in a gallery of 100 people."""
    return AnonymizerRisk(
        anonymizer=name,
        risk=value,
        low=low,
        high=high,
        attacker="adaptive_contrastive",
        protocol="full_ref",
        gallery="source_excluded",
        chance=0.01,
        k_not_rejected=k_not_rejected,
        confidence_level=0.95,
        gallery_size=100,
    )


def rows(measure: str, higher: bool = True, **values: float) -> list[UtilityRow]:
    """A measure of each anonymizer, by its name."""
    return [UtilityRow(name, measure, v, v, v, 9, higher) for name, v in values.items()]
