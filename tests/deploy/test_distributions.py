"""What would be published: a source distribution and a wheel that PyPI accepts."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import cldmray

ROOT = Path(__file__).resolve().parents[2]
BUILT_FROM = (
    "cldmray", "conf", "pyproject.toml", "setup.py", "README.md", "LICENSE", "CHANGELOG.md",
)  # fmt: skip
NEEDED = (
    "cldmray/py.typed",
    "cldmray/conf/audit.yaml",
    "cldmray/conf/anonymizers/sd15_canny.yaml",
    "cldmray/report/templates/style.css",
    "cldmray/weights/cldm128/unet/diffusion_pytorch_model.safetensors",
)


@pytest.mark.slow
def test_the_distributions_are_whole_and_pass_twine(tmp_path: Path) -> None:
    source, built = tmp_path / "source", tmp_path / "built"
    source.mkdir()
    for name in BUILT_FROM:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, symlinks=True)
        else:
            shutil.copy(path, source / name)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", built, source]
    subprocess.run(build, check=True, capture_output=True, timeout=500)
    (sdist,), (wheel,) = built.glob("*.tar.gz"), built.glob("*.whl")
    stem = f"cldmray-{cldmray.__version__}"
    assert sdist.name == f"{stem}.tar.gz" and wheel.name == f"{stem}-py3-none-any.whl"

    names = set(zipfile.ZipFile(wheel).namelist())
    assert set(NEEDED) <= names
    assert {
        f"{stem}.dist-info/{name}" for name in ("licenses/LICENSE", "entry_points.txt")
    } <= names
    with tarfile.open(sdist) as archive:
        assert {f"{stem}/{name}" for name in NEEDED} <= set(archive.getnames())

    check = [sys.executable, "-m", "twine", "check", "--strict", sdist, wheel]
    checked = subprocess.run(check, capture_output=True, text=True, timeout=100)
    assert checked.returncode == 0, checked.stdout + checked.stderr
