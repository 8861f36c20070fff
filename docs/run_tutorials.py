"""Run the tutorials anew, and keep what they print.

    python docs/run_tutorials.py docs/tutorials/audit_a_folder.ipynb

Each runs in a folder of its own that is deleted afterwards. What goes to stderr is not kept, nor
what names a machine or a time; images are brought to a palette, which keeps the repository small.
"""

import base64
import io
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

SECONDS = 900
"""Longest time of a cell."""


def run(path: Path) -> None:
    """Execute a notebook and write it with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(
            notebook, timeout=SECONDS, kernel_name="python3", resources=resources,
            coalesce_streams=True,
        )  # fmt: skip
        client.execute()
    for place, cell in enumerate(notebook.cells):
        cell["id"], cell["metadata"] = f"cell-{place}", {}
        if cell.cell_type == "code":
            cell.outputs = [part for part in cell.outputs if part.get("name") != "stderr"]
            for part in cell.outputs:
                if "image/png" in part.get("data", {}):
                    part.data["image/png"] = shrunk(part.data["image/png"])
    nbformat.write(notebook, path)


def shrunk(encoded: str) -> str:
    """A PNG in base64 with at most 64 colours."""
    image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    sink = io.BytesIO()
    image.quantize(64, dither=Image.Dither.NONE).save(sink, "png", optimize=True)
    return base64.b64encode(sink.getvalue()).decode()


if __name__ == "__main__":
    for name in sys.argv[1:]:
        run(Path(name))
