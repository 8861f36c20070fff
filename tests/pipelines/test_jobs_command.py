"""The report says how the audit was started."""

import sys

import pytest

from cldmray.pipelines.jobs import _command


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/opt/bin/cldmray", "audit", "faces.root=a b"], "cldmray audit 'faces.root=a b'"),
        (["/x/jobs/full_audit.py", "seed=1"], "python jobs/full_audit.py seed=1"),
        (["/usr/lib/ipykernel/__main__.py", "-f", "k.json"], ""),
    ],
)
def test_how_the_audit_was_started(
    argv: list[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert _command() == command
