"""`make containers` on a machine that cannot: loud on a laptop, a failure in CI."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SENTENCE = "container nodes cannot run here: they need root"


def lane(tmp_path: Path, *, is_fit: bool, **environ: str) -> subprocess.CompletedProcess[str]:
    """The target itself, with a Python that only says whether the machine is fit, and what else it was asked to run."""
    python = tmp_path / "python"
    unfit = "" if is_fit else f"echo '{SENTENCE}'; exit 1"
    python.write_text(f'#!/bin/sh\ncase "$2" in espalier_local.machine) {unfit} ;; *) echo "ran $2" ;; esac\n')
    python.chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if name not in ("CI", "MAKEFLAGS", "MAKELEVEL")}
    command = ["make", "--no-print-directory", "--old-file=binaries", f"PY={python}", "containers"]
    return subprocess.run(command, cwd=ROOT, env=clean | environ, capture_output=True, text=True, check=False)


def test_a_laptop_that_cannot_is_told_so(tmp_path: Path) -> None:
    done = lane(tmp_path, is_fit=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, f"NOT TESTED: {SENTENCE}\n", "")


def test_ci_that_cannot_fails(tmp_path: Path) -> None:
    done = lane(tmp_path, is_fit=False, CI="true")
    assert done.returncode != 0
    assert SENTENCE in done.stderr
    assert "ran" not in done.stdout


@pytest.mark.parametrize("environ", [{}, {"CI": "true"}], ids=["laptop", "CI"])
def test_a_machine_that_can_builds_the_images_and_tests(tmp_path: Path, environ: dict[str, str]) -> None:
    done = lane(tmp_path, is_fit=True, **environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "ran espalier_local.building\nran pytest\n"
