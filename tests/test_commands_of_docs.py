"""The shell and Python blocks of README and docs run as they stand, on people who do not exist.

A block that needs more says so (``# needs: a cluster``) and is left out here; its commands are
composed by ``tests/test_docs.py`` all the same. Small settings come from the command that the
blocks find: it is the real one, with further arguments where a block leaves them open.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from cldmray.anonymizers.base import Batch
from cldmray.anonymizers.baselines import Blur
from cldmray.faces.records import decode_image, encode_image
from cldmray.faces.synthetic import SyntheticFaces

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```", re.M | re.S)
NEEDS = re.compile(r"# needs: \w")
LANGUAGES = {"sh", "python", "text", "{include}", "{toctree}", "{eval-rst}"}
GATE_FAILED = 3

COMMAND = '''#!{python}
"""The command cldmray, with small settings for audits that do not say otherwise."""
import sys

SMALL = {{
    "splits.n_evaluation_identities": "20", "splits.min_images": "4", "audit.n_bootstrap": "100",
    "audit.utility": "[ssim]", "audit.attribution": "false", "audit.n_inference_images": "0",
    "audit.protocols": "[full_ref]", "attackers": "[pretrained]", "anonymizers": "[cldm_depth]",
}}
SYNTHETIC = {{"faces.n_identities": "30", "faces.images_per_identity": "4"}}

command, given = sys.argv[1], sys.argv[2:]
keys = {{text.partition("=")[0] for text in given}}
if command in ("audit", "anonymize") or command == "plan" and len(given) != 1:
    small = SMALL if "faces" in keys else SMALL | SYNTHETIC
    sys.argv += [f"{{key}}={{value}}" for key, value in small.items() if key not in keys]
    sys.argv.append("~tracking")
from cldmray.cli import main

main()
'''
PREAMBLE = """
import functools

import cldmray

cldmray.audit = functools.partial(
    cldmray.audit,
    splits={"n_evaluation_identities": 12, "min_images": 4},
    audit={"n_bootstrap": 100, "utility": [], "attribution": False, "n_inference_images": 0},
    **{f"attackers.adaptive_distilled.training.{key}": value
       for key, value in {"max_steps": 2, "batch_size": 8, "warmup_steps": 1}.items()},
)


def my_function(images, seeds):
    return images // 2

"""


class CodeBlock(NamedTuple):
    """A fenced block of a page."""

    page: Path
    number: int
    language: str
    text: str

    @property
    def runs(self) -> bool:
        """Whether it runs as it stands; examples with ``>>>`` run in tests/test_docs.py."""
        prompts = ">>> " in self.text
        return self.language in ("sh", "python") and not prompts and not NEEDS.search(self.text)


BLOCKS = [
    CodeBlock(page, number, match[1], match[2])
    for page in PAGES
    for number, match in enumerate(BLOCK.finditer(page.read_text("utf-8")), start=1)
]


@pytest.fixture(scope="module")
def faces_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of 30 people (``DIR``, ``originals``), and what a blur made of them."""
    root = tmp_path_factory.mktemp("docs")
    source = SyntheticFaces(n_identities=30, images_per_identity=4, size=128)
    listing = source.listing()
    columns = (listing[name].to_pylist() for name in ("identity", "sample_id", "location"))
    blur = Blur().open()
    for identity, sample, location in zip(*columns, strict=True):
        (content,) = source.read([location])
        assert content is not None
        image = decode_image(content)[None]
        blurred = blur(Batch([sample], image, np.zeros(1, np.int64)))[0]
        for folder, data in (("DIR", content), ("anonymized", encode_image(blurred))):
            place = root / folder / identity
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{sample}.png").write_bytes(data)
    (root / "originals").symlink_to(root / "DIR")
    (root / "ANONYMIZED").symlink_to(root / "anonymized")
    command = root / "bin" / "cldmray"
    command.parent.mkdir()
    command.write_text(COMMAND.format(python=sys.executable))
    command.chmod(0o755)
    return root


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_block_says_what_it_is(page: Path) -> None:
    blocks = [block for block in BLOCKS if block.page == page]
    assert [block.number for block in blocks if block.language not in LANGUAGES] == []


def test_blocks_that_run() -> None:
    pages = {block.page.name for block in BLOCKS if block.runs}
    assert pages >= {"README.md", "quickstart.md", "gate.md", "resume.md"}


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.runs],
    ids=lambda block: f"{block.page.stem}-{block.number}",
)
def test_a_block_runs(block: CodeBlock, faces_folder: Path, tmp_path: Path) -> None:
    for folder in ("DIR", "originals", "anonymized", "ANONYMIZED"):
        (tmp_path / folder).symlink_to(faces_folder / folder)
    environment = os.environ | {
        "PATH": os.pathsep.join([str(faces_folder / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
    }
    program = ["bash", "-euc", block.text]
    if block.language == "python":
        program = [sys.executable, "-c", PREAMBLE + block.text]
    done = subprocess.run(
        program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=590
    )
    expected = {0, GATE_FAILED} if "fail_on" in block.text else {0}
    assert done.returncode in expected, done.stdout[-3000:] + done.stderr[-3000:]
