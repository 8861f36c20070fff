"""One vocabulary: words that were retired do not come back.

One thing has one name (``docs/glossary.md``). Names are checked where Python binds them, so that a
library's own names do not count. Prose is checked in docstrings, comments, messages, YAML,
templates and Markdown.
"""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CODE = ("cldmray", "jobs", "benchmarks", "tests")
HERE = "tests/test_vocabulary.py"

PARTS = {
    "picture": "image",
    "pictures": "image",
    "photo": "image",
    "photos": "image",
    "photograph": "image",
    "photographs": "image",
    "rung": "attacker",
    "rungs": "attacker",
    "ladder": "attackers",
    "redraw": "anonymize",
    "redraws": "anonymize",
    "redrawn": "anonymized",
    "redrawing": "anonymize",
    "taught": "distilled",
    "fusing": "score_fusion",
    "inverter": "reconstruction model",
    "inverters": "reconstruction model",
    "campaign": "attack runner",
    "exposure": "data preparation",
    "findings": "attack results",
    "judge": "held-out recognizer, rank or gate",
    "judged": "verdict",
    "surely": "significantly",
    "guessing": "chance",
    "firmest": "highest lower bound",
    "surest": "highest lower bound",
    "resamples": "n_bootstrap",
    "rival": "impostor",
    "rivals": "impostors",
    "lane": "in-flight calls",
    "lanes": "in-flight calls",
    "somebody": "identity",
    "person": "identity",
    "people": "identities",
}
"""Parts of names, such as ``picture`` of ``read_pictures`` or ``InPictures``, and their heirs."""

TERMS = ("person_level",)
"""Terms of the protocols that may stand in names though one of their parts is retired."""

NAMES = {
    **dict.fromkeys(
        ("found", "told", "one", "chosen", "known", "shown", "every", "words", "advice", "answer"),
        "the noun of what it holds",
    ),
    "announce": "the logger cldmray",
    "who": "identity",
    "off_the_shelf": "pretrained",
    "clear_trained": "clean_trained",
    "edge_match": "condition_match",
    "edge_proxy": "condition_only",
    "adaptive_teacher": "adaptive_distilled",
    "adaptive_edges": "adaptive_condition",
    "teacher_guided": "distilled",
    "look_alike": "nearest_neighbor",
    "survival": "deferred errors",
    "left_open": "orphaned_runs",
    "own_errors": "reraise_worker_errors",
    "through_losses": "retry_on_node_failure",
    "unhashed": "excluded from the cache key",
    "in_batches": "BatchedRunner",
    "rows_a_call": "rows_per_call",
    "settled_blocks": "tie_resolved_blocks",
    "anonymity_set_size": "mean_rank",
    "largest_k": "k_supported",
    "largest_k_not_rejected": "k_not_rejected",
    "largest_k_supported": "k_supported",
    "promised_k": "nominal_k",
    "attacker_draws": "samples_per_image",
    "attacker_seeds": "n_training_seeds",
    "max_bad_share": "max_invalid_fraction",
    "min_clear_rank_1": "min_clean_rank_1",
    "start_from": "init_from",
    "cache_chunk": "micro_batch_size",
    "faces_found": "face_detection_rate",
    "pose_agreement": "pose_consistency",
    "stage_table": "Artifact",
    "work": "cache_dir",
    "leak_study": "AttributionStudy",
    "health": "diagnostics",
    "fold": "patch_size",
    "frozen": "n_frozen_layers",
    "grace": "grace_period",
    "reduction": "reduction_factor",
}
"""Whole names of variables, functions, classes (as snake case), arguments, attributes, modules."""

DEFINITIONS = {"plain": "to_container", "building": "instantiate"}
"""Whole names of functions, classes and modules; variables may have them."""

TOP_KEYS = {"anonymizer": "anonymizers", "attack": "attackers", "attacker": "attackers"}
"""Keys at the top of a configuration; deeper down ``anonymizer`` names a single one."""
KEYS = {
    "inverter": "reconstruction_model",
    "inverters": "reconstruction_models",
    "work": "cache_dir",
    "background": "auxiliary",
    "level": "confidence_level",
    "steps": "num_inference_steps or max_steps",
    "guidance": "guidance_scale",
    "scale": "controlnet_conditioning_scale",
    "judge": "held_out_recognizer",
    "validator": "validation_recognizer",
    **{
        name: NAMES[name]
        for name in (
            "attacker_draws",
            "attacker_seeds",
            "max_bad_share",
            "min_clear_rank_1",
            "start_from",
            "cache_chunk",
            "promised_k",
            "frozen",
            "fold",
            "grace",
            "reduction",
        )
    },
    "resamples": "n_bootstrap",
}
"""Keys of YAML files."""

PHRASES = {
    r"pictures?": "image",
    r"photo(?:graph)?s?": "image",
    r"rungs?": "attacker",
    r"ladders?": "attackers",
    r"redraw(?:n|s|ing)?": "anonymize",
    r"ways? back": "reconstruction",
    r"turn(?:ed|s)? back": "reconstructed",
    r"inverters?": "reconstruction model",
    r"named rightly|names? [^.]{0,40}rightly|rightly named": "identified",
    r"(?:beside|of|by|than|mere|only) guess(?:ing|es)": "chance",
    r"g[ia]ves? (?:[a-z]+ )?away": "leaks identity",
    r"surely": "significantly",
    r"off_the_shelf": "pretrained",
    r"clear_trained|clear images|clear rank": "clean_trained, clean images",
    r"edge_match|edge_proxy(?:_teacher)?|adaptive_(?:teacher|edges)": "its name in VOCABULARY",
    r"look[-_]alikes?": "nearest_neighbor",
    r"belongs? to nobody": "label-permutation control",
    r"recovery shown": "significantly above all controls",
    r"campaigns?": "attack runner",
    r"judges?|judged|judging": "held-out recognizer, rank or gate",
    r"validator": "validation recognizer",
    r"anonymity_set_size": "mean_rank",
    r"largest_k(?:_not_rejected|_supported)?": "k_supported, k_not_rejected",
    r"promised_k": "nominal_k",
    r"attacker_draws": "samples_per_image",
    r"attacker_seeds": "n_training_seeds",
    r"max_bad_share": "max_invalid_fraction",
    r"min_clear_rank_1": "min_clean_rank_1",
    r"start_from": "init_from",
    r"cache_chunk": "micro_batch_size",
    r"faces_found": "face_detection_rate",
    r"pose_agreement": "pose_consistency",
    r"(?-i:DESIGN)": "docs/architecture.md",
    r"an reconstruction\w*|images? and images?": "English that a replacement broke",
    r"a (?:anonymiz|attack|image|identit|artifact|original)\w*": "an",
}
"""Phrases of prose, as regular expressions of whole words."""


class Allowed(NamedTuple):
    """Where a retired word stays, and why."""

    path: str
    text: str
    reason: str


ALLOWED = (
    Allowed("", r"[Pp]hoto (?:of a |\{)", "the prompt is part of what a model draws"),
    Allowed("benchmarks/compare_audits.py", '": "', "old names of tables are translated there"),
    Allowed("tests/benchmarks/test_compare_audits.py", "row\\(", "rows of an old table"),
    Allowed("cldmray/config/retired.py", "", "the table of retired keys names them"),
    Allowed("tests/config/test_retired.py", "", "retired keys are refused there"),
    Allowed("cldmray/faces/synthetic", r'"synthetic photo"', "a salt of images, likewise"),
    Allowed("cldmray/hashing.py", r'"picture"', "a salt of seeds: another would move every number"),
)
"""Excused lines: start of the path, regular expression that the line holds, reason."""

PROSE = re.compile(
    rf"(?i)(?<![\w.-])(?:{'|'.join(f'(?P<p{n}>{text})' for n, text in enumerate(PHRASES))})"
    r"(?![\w-])".replace(" ", r"\s+")
)
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class Violation(NamedTuple):
    """A retired word: where, which, and what to write."""

    path: str
    line: int
    word: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.word!r}: {self.instead}"


def snake(name: str) -> str:
    """``InPictures`` as ``in_pictures``."""
    return CAMEL.sub("_", name).strip("_").lower()


def bound_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every variable, argument, attribute, function and class that is bound."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname


def definitions(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every function and class."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name


def retired_name(name: str) -> str | None:
    """What to write instead of a name; None where it may stay."""
    words = snake(name)
    if words in NAMES:
        return NAMES[words]
    for term in TERMS:
        words = words.replace(term, "")
    return next((PARTS[part] for part in words.split("_") if part in PARTS), None)


def name_violations(path: str, text: str) -> Iterator[Violation]:
    """Retired names of Python code; a test's sentence is prose."""
    if instead := retired_name(Path(path).stem):
        yield Violation(path, 1, Path(path).stem, instead)
    tree = ast.parse(text)
    for line, name in definitions(tree):
        if snake(name) in DEFINITIONS:
            yield Violation(path, line, name, DEFINITIONS[snake(name)])
    for line, name in bound_names(tree):
        if name.startswith("test_"):
            yield from prose_violations(path, name.replace("_", " "), line)
        elif instead := retired_name(name):
            yield Violation(path, line, name, instead)


def prose_violations(path: str, text: str, first: int = 1) -> Iterator[Violation]:
    """Retired phrases in a piece of text that begins at a line."""
    for match in PROSE.finditer(text):
        line = first + text.count("\n", 0, match.start())
        instead = list(PHRASES.values())[int(match.lastgroup[1:])] if match.lastgroup else ""
        yield Violation(path, line, " ".join(match.group().split()), instead)


def code_prose(text: str) -> Iterator[tuple[int, str]]:
    """Comments and strings of Python code, each with its line."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = tokenize.tok_name[token.type]
        if kind in ("COMMENT", "STRING", "FSTRING_MIDDLE"):
            yield token.start[0], token.string


def key_violations(path: str, text: str) -> Iterator[Violation]:
    """Retired keys of a YAML file."""

    def keys(node: yaml.Node, retired: dict[str, str]) -> Iterator[Violation]:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = str(key.value).split("@")[0].removeprefix("/").removeprefix("override ")
                if name in retired:
                    yield Violation(path, key.start_mark.line + 1, name, retired[name])
                yield from keys(value, retired if name == "defaults" else KEYS)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                yield from keys(item, retired)

    root = yaml.compose(text)
    if root is not None:
        yield from keys(root, {**TOP_KEYS, **KEYS})


def violations_of(path: str, text: str) -> Iterator[Violation]:
    """All retired words of one file, excused ones left out."""
    suffix = Path(path).suffix
    candidates: list[Violation] = []
    if suffix == ".py":
        candidates += name_violations(path, text)
        for line, piece in code_prose(text):
            candidates += prose_violations(path, piece, line)
    else:
        candidates += prose_violations(path, text)
        if suffix == ".yaml" and path.startswith("conf/"):
            candidates += key_violations(path, text)
    lines = text.splitlines()
    for violation in candidates:
        line = lines[violation.line - 1] if lines else ""
        if not any(path.startswith(a.path) and re.search(a.text, line) for a in ALLOWED):
            yield violation


def files() -> list[str]:
    """Tracked texts that are ours."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split("\0")
    endings = (".py", ".yaml", ".md", ".j2", ".toml", "Makefile", "Containerfile")
    return [
        name
        for name in listed
        if name.endswith(endings) and name != HERE and (ROOT / name).is_file()
    ]


def test_retired_words_do_not_come_back() -> None:
    violations = [
        str(violation)
        for name in files()
        for violation in violations_of(name, (ROOT / name).read_text(encoding="utf-8"))
    ]
    assert not violations, "\n" + "\n".join(violations)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("found = 1", ["found"]),
        ("for one in x:\n    f(one.found)", ["one"]),
        ("def f(pictures, *, told=1): ...", ["pictures", "told"]),
        ("class InversionRung: ...", ["InversionRung"]),
        ("self.largest_k = 1", ["largest_k"]),
        ("import a as rival", ["rival"]),
        ("x = [every for every in y]", ["every"]),
        ("@dataclass(frozen=True)\nclass A: ...", []),
        ("library.picture(photo=x.rung)", []),
        ("someone, phone, image_one = x", []),
        ("def test_every_rung(): ...", ["rung"]),
        ("def test_one_is_found(): ...", []),
        ('"""The ladder."""', ["ladder"]),
        ("x = 1  # of every picture", ["picture"]),
        ('f"{x} is surely {y}"', ["surely"]),
        ('"a photo of a face"', []),
        ('"every one is found: known words"', []),
        ('"a.picture"', []),
    ],
)
def test_words_of_code(code: str, words: list[str]) -> None:
    assert [violation.word for violation in violations_of("a.py", code)] == words


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("conf/a.yaml", "defaults:\n  - encoder@x.steps: small\nattack: [x]", ["attack"]),
        ("conf/a.yaml", "a:\n  - guidance: 1  # photo\n", ["photo", "guidance"]),
        ("conf/a.yaml", "defaults:\n  - anonymizer: x\nb:\n  anonymizer: y\n", ["anonymizer"]),
        ("deploy/a.yaml", "scale: 1", []),
        ("README.md", "The way\nback, a photo of a face.", ["way back"]),
        ("README.md", "Look at the face, named\nrightly.", ["named rightly"]),
        ("a.html.j2", "<td>{{ x.redrawn }} redrawn</td>", ["redrawn"]),
    ],
)
def test_words_of_other_texts(path: str, text: str, words: list[str]) -> None:
    assert [violation.word for violation in violations_of(path, text)] == words


def test_excused_lines_have_a_reason_and_are_needed() -> None:
    for excuse in ALLOWED:
        assert excuse.reason
        assert any(
            re.search(excuse.text, (ROOT / name).read_text(encoding="utf-8"))
            for name in files()
            if name.startswith(excuse.path)
        ), f"{excuse.text} excuses nothing any more"
