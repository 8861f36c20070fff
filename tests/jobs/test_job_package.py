"""What ``ray job submit --working-dir .`` takes along."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_submitted_job_takes_along_what_it_needs_and_leaves_the_rest(tmp_path):
    from zipfile import ZipFile

    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    for name in (".git/config", ".venv/bin/python", "mlflow.db", "runs/cache/x", "docs/x.png",
                 "tests/x.py", "benchmarks/x.py", "deploy/rayjob.yaml", "shared/x.jpg",
                 "cldmray/docs/x.py", "cldmray/x.py", "cldmray/weights/x.safetensors",
                 "cldmray/__pycache__/x.pyc", "conf/audit.yaml", "jobs/full_audit.py",
                 "constraints.txt", "pyproject.toml"):  # fmt: skip
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    for name in (".gitignore", ".rayignore"):
        (tmp_path / "project" / name).write_bytes((ROOT / name).read_bytes())
    archive = tmp_path / "package.zip"
    create_package(
        str(tmp_path / "project"),
        archive,
        include_gitignore=True,
        excludes=get_runtime_env_default_excludes(),
    )
    with ZipFile(archive) as package:
        taken = {name for name in package.namelist() if not name.endswith("/")}
    assert taken == {
        ".gitignore", ".rayignore", "cldmray/docs/x.py", "cldmray/x.py",
        "cldmray/weights/x.safetensors", "conf/audit.yaml", "jobs/full_audit.py",
        "constraints.txt", "pyproject.toml",
    }  # fmt: skip
