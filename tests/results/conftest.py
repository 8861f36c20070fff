"""The complete report with made-up numbers of ``tests/report``, here too."""

import runpy
from pathlib import Path

report = runpy.run_path(str(Path(__file__).parents[1] / "report" / "conftest.py"))["report"]
