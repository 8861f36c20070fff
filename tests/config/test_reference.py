"""docs/configuration.md is what the schemas say."""

from pathlib import Path

from cldmray.config.reference import reference

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), (
        "run: python -m cldmray.config.reference > docs/configuration.md"
    )


def test_every_setting_has_a_meaning() -> None:
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    without = [line.split(" | ")[0] for line in rows if line.endswith("|  |")]
    assert len(rows) > 200
    assert not without, without
