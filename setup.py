"""Records the commit in a wheel; everything else about the build is in ``pyproject.toml``."""

import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class RecordCommit(build_py):
    """Copies the package, and writes ``cldmray/COMMIT`` where git knows the commit."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.SubprocessError):
            return
        Path(self.build_lib, "cldmray", "COMMIT").write_text(done.stdout, "utf-8")


setup(cmdclass={"build_py": RecordCommit})
