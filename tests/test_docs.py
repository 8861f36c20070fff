"""What README and docs say exists: linked files, commands that can be pasted, columns and keys.

Examples with ``>>>`` are run; ``tests/test_commands_of_docs.py`` runs the other blocks.
"""

import doctest
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hydra import compose, initialize_config_dir

from cldmray.arrays import Interval
from cldmray.cli.overrides import quoted
from cldmray.evaluation.decision import decide
from cldmray.faces.records import REJECTED
from cldmray.report.verdict import state_verdict
from cldmray.results.attribution import ATTRIBUTION
from cldmray.results.audit import AnonymizerRisk, AttackRate, AuditReport, Grid, UtilityRow, Verdict
from cldmray.results.exposed import EXPOSED, EXPOSED_IDENTITIES
from cldmray.results.files import EVIDENCE, IMAGES, report_json
from cldmray.results.table import RESULTS, UTILITY

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "llms.txt"])
CONFIGS = {
    "audit": "audit",
    "plan": "audit",
    "demo": "demo",
    "attribute": "attribute",
    "invert": "invert",
    "jobs/full_audit.py": "audit",
    "jobs/attribute_leak.py": "attribute",
    "jobs/invert.py": "invert",
    "jobs/train_cldm.py": "cldm",
    "jobs/train_depth.py": "depth",
}
"""Configuration of each command and job."""
COMMAND = re.compile(r"\b(?:cldmray (\w+)|python (\S+\.py))(.*)")
OVERRIDE = re.compile(r"\+{0,2}[\w/]+(@[\w.]+|\.[\w.]+)?=\S")


def code_lines(text: str) -> Iterator[str]:
    """Lines of code blocks, fenced or indented, with continued ones joined."""
    fenced, pending = False, ""
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    ") or pending:
            pending += line.strip()
            if pending.endswith("\\"):
                pending = pending[:-1]
            else:
                yield pending
                pending = ""


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Command or script, and arguments, of every line of code and every quoted command."""
    text = page.read_text(encoding="utf-8")
    variables: dict[str, str] = {}
    quoted = re.findall(r"`((?:cldmray|python) [^`]+)`", text)
    for line in [*code_lines(text), *(" ".join(command.split()) for command in quoted)]:
        if assigned := re.fullmatch(r"([A-Z]+)=(\S+)", line):
            variables[assigned[1]] = assigned[2]
            continue
        for name, value in variables.items():
            line = line.replace(f"${name}.", f"{value}.")
        if match := COMMAND.search(line):
            yield match[1] or match[2], shlex.split(match[3].replace("...", ""), comments=True)
        elif OVERRIDE.match(line):
            yield "audit", [*needed_options(line), *shlex.split(line, comments=True)]


def needed_options(line: str) -> Iterator[str]:
    """Overrides that choose what a line, which stands alone, sets more of."""
    for group in ("attackers", "anonymizers"):
        names = sorted(set(re.findall(rf"\b{group}\.(\w+)", line)))
        if names and not re.search(rf"\b{group}=", line):
            yield f"{group}=[{','.join(names)}]"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_linked_files_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_named_modules_and_tests_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    paths = re.findall(r"\b((?:cldmray|tests|jobs|benchmarks|conf|deploy)/[\w/]+\.\w+)", text)
    examples = [path for path in paths if "NAME" not in path]
    assert [path for path in examples if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_compose(page: Path) -> None:
    for command, arguments in commands(page):
        if command.startswith("benchmarks/"):
            assert (ROOT / command).exists()
        elif "--config-dir" not in arguments and "--help" not in arguments:
            config, overrides = CONFIGS.get(command, command), arguments
            if "--config-name" in overrides:
                place = overrides.index("--config-name")
                config = overrides[place + 1]
                overrides = overrides[:place] + overrides[place + 2 :]
            if command not in CONFIGS:
                continue
            overrides = [text for text in overrides if "=" in text and text != "faces=DIR"]
            with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
                compose(
                    config, [text.replace("DIR_OR_HUB_ID", "DIR") for text in quoted(overrides)]
                )


EXAMPLES = [page for page in PAGES if ">>> " in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda path: path.name)
def test_examples_hold(page: Path) -> None:
    unfenced = re.sub(r"^```.*$", "", page.read_text(encoding="utf-8"), flags=re.M)
    test = doctest.DocTestParser().get_doctest(unfenced, {}, page.name, str(page), 0)
    outcome = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    assert outcome.attempted > 0 and outcome.failed == 0


TABLES: Mapping[str, pa.Schema] = {
    "results.parquet": RESULTS,
    "utility.parquet": UTILITY,
    "attribution.parquet": ATTRIBUTION,
    "exposed.parquet": EXPOSED,
    "exposed_identities.parquet": EXPOSED_IDENTITIES,
    "rejected.parquet": REJECTED,
    "images.parquet": IMAGES,
    "evidence.parquet": EVIDENCE,
}
RATE = AttackRate("pretrained", "full_ref", "source_excluded", 0.3, 0.2, 0.4, 0.01)
RISK = AnonymizerRisk(
    "blur", 0.3, 0.2, 0.4, "pretrained", "full_ref", "source_excluded", 0.01, 5, 0.95, 100,
    excess=Interval(0.29, 0.19, 0.39), linkage=RATE,
    cross_image=RATE, same_image=RATE, person_level=RATE,
)  # fmt: skip


def documented(file: str) -> list[str]:
    """Columns or keys that docs/results_files.md names of a file, in its order."""
    page = (ROOT / "docs" / "results_files.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {re.escape(file)}$(.*?)(?=^## |\Z)", page, re.M | re.S)
    return re.findall(r"^\| `([\w.]+)` \|", section, re.M)


def nested_keys(record: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys of a record; of a list of records those of its first."""
    for key, value in record.items():
        inner = value[0] if isinstance(value, list) and value else value
        mapping = isinstance(inner, Mapping) and bool(inner)
        yield f"{prefix}{key}"
        if mapping:
            yield from nested_keys(inner, f"{prefix}{key}.")


@pytest.mark.parametrize("file", TABLES)
def test_every_column_of_a_table_is_documented_and_no_other(file: str) -> None:
    assert documented(file) == TABLES[file].names


def test_every_key_of_the_verdict_is_documented_and_no_other() -> None:
    utility = [UtilityRow("blur", "ssim", 0.5, 0.4, 0.6, 9, True, clean=1.0, chance=0.2)]
    record = state_verdict(decide([RISK], set(), utility=utility)).record
    assert sorted(documented("verdict.json")) == sorted(nested_keys(record))


def test_every_key_of_the_report_is_documented_and_no_other() -> None:
    grid = Grid(np.zeros((0, 8, 8, 3), np.uint8), [])
    report = AuditReport(
        "t", "2026-01-01T00:00:00", Verdict("", {}), [RISK], RESULTS.empty_table(), [], grid,
        REJECTED.empty_table(), 0, {}, {}, [], [],
    )  # fmt: skip
    assert sorted(documented("report.json")) == sorted(json.loads(report_json(report)))
