"""`espalier demo`: the real course, the real model, every figure checked by the command itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from espalier_local.cluster import Cluster

pytestmark = pytest.mark.timeout(900)

WARM_SECONDS = 600
"""The demo's own limit for grading is longer; on two idle cores all of it takes about a minute."""


def test_the_demo_grades_the_real_course_and_checks_its_own_figures(released: Cluster) -> None:
    command = [str(Path(sys.executable).with_name("espalier")), "demo", "--name", released.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WARM_SECONDS)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    print(done.stdout)
    for name, tests in {"bitdiddle": "1.5/3", "hacker": "3.0/3", "blank": "0.0/3"}.items():
        assert re.search(rf"^ *{name} +{re.escape(tests)} ", done.stdout, re.MULTILINE)
    assert "simulated" in done.stdout
    assert f"espalier local down --name {released.name}" in done.stdout
    (report,) = re.findall(r"^report: (.+)$", done.stdout, re.MULTILINE)
    assert "bitdiddle" not in Path(report).read_text(), "the class page knows pseudonyms only"
