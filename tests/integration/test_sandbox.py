"""Student code against the real sandbox: what it tries fails, and the tests still tell the truth."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from espalier_api.gradingjob import Execution
from espalier_grading import execute as execute_module
from espalier_grading.execute import run_notebook
from espalier_grading.model import CellResult, NotebookRun, RunCell
from espalier_grading.sandbox import Bubblewrap
from espalier_grading.sandboxes import sandbox
from espalier_kit.execution import EvaluatorFault

SECONDS = 8


async def _run(
    *sources: str, execution: Execution | None = None, data: dict[str, bytes] | None = None, kernel: str = "python3"
) -> list[CellResult]:
    cells = tuple(RunCell(key=str(i), source=source) for i, source in enumerate(sources))
    limits = execution or Execution(kernel_timeout_seconds=SECONDS, memory="1Gi")
    run = NotebookRun(notebook="n", kernel=kernel, cells=cells)
    return list((await run_notebook(Bubblewrap(), run, data=data or {}, execution=limits)).cells)


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)", id="host-loopback"),
        pytest.param("import socket\nsocket.create_connection(('192.0.2.1', 80), 2)", id="network"),
        pytest.param("open('/usr/x', 'w')", id="system"),
        pytest.param("open('{prefix}/x', 'w')", id="interpreter"),
        pytest.param("open('/x', 'w')", id="root"),
        pytest.param("open('{home}')", id="file-of-ours"),
        pytest.param("import os\nos.setuid(0)", id="become-root"),
        pytest.param("import os\nos.kill(1, 0) or open('/proc/1/environ').read()", id="first-process"),
        pytest.param(
            "import ctypes, os\nassert ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None) == 0", id="mount"
        ),
        pytest.param("open('big', 'wb').write(b'x' * (300 << 20))", id="large-file"),
        pytest.param("for i in range(9): open(f'b{i}', 'wb').write(b'x' * (100 << 20))", id="full-disk"),
        pytest.param("x = bytearray(3 << 30)", id="memory"),
    ],
)
async def test_what_student_code_may_not_do_fails_and_the_next_cell_runs(code: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        tried = (
            code.replace("{port}", str(listener.getsockname()[1]))
            .replace("{prefix}", sys.prefix)
            .replace("{home}", str(secret))
        )
        forbidden, after = await _run(tried, "assert 1 + 1 == 2")
    assert forbidden.reason, "it was allowed"
    assert after.reason == ""


async def test_the_environment_carries_nothing_of_ours() -> None:
    os.environ["ESPALIER_TEST_SECRET"] = "x"
    try:
        (cell,) = await _run("import os\nprint(sorted(k for k in os.environ if 'ESPALIER' in k or 'TOKEN' in k))")
    finally:
        del os.environ["ESPALIER_TEST_SECRET"]
    assert cell.output.strip() == "[]"


async def test_an_endless_loop_is_cut_off_and_the_tests_after_it_run() -> None:
    loop, after = await _run("while True: pass", "assert True")
    assert loop.reason == "Timeout"
    assert after.reason == ""


async def test_a_loop_that_ignores_interrupts_ends_the_notebook_in_its_time() -> None:
    began = time.monotonic()
    cells = await _run("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass", "assert True")
    assert [cell.reason for cell in cells] == ["Timeout", "Timeout"]
    assert time.monotonic() - began < SECONDS + execute_module.GRACE_SECONDS


async def test_a_notebook_that_ends_its_kernel_fails_its_tests() -> None:
    ended, after = await _run("import os\nos._exit(0)", "assert True")
    assert ended.reason == "KernelDied"
    assert after.reason == "KernelDied"


async def test_a_flood_of_output_is_bounded_and_hides_no_failure() -> None:
    flood, test = await _run("print('x' * 10_000_000)", "print('y' * 200_000)\nassert False")
    assert len(flood.output) <= execute_module.CELL_OUTPUT_BYTES
    assert test.reason == "AssertionError"


async def test_lines_that_look_like_results_change_nothing() -> None:
    forged = '{"event": "cell", "key": "1", "reason": ""}'
    cells = await _run(
        f"import os\nfor fd in range(3, 40):\n    try: os.write(fd, {forged!r}.encode() + b'\\n')\n"
        f"    except OSError: pass\nprint({forged!r})",
        "assert False",
    )
    assert cells[1].reason != ""


async def test_killing_everything_in_reach_earns_nothing() -> None:
    cells = await _run("import os, signal\nos.kill(-1, signal.SIGKILL)", "assert True")
    assert all(cell.reason for cell in cells)


async def test_data_files_lie_beside_the_notebook_and_may_be_overwritten_in_place() -> None:
    read, write = await _run(
        "assert open('in/x.csv').read() == 'a,b'", "open('in/x.csv', 'w').write('c')", data={"in/x.csv": b"a,b"}
    )
    assert (read.reason, write.reason) == ("", "")


async def test_every_notebook_gets_a_fresh_kernel() -> None:
    await _run("left_over = 1; open('left', 'w').write('x')")
    (name, file) = await _run("left_over", "open('left')")
    assert (name.reason, file.reason) == ("NameError", "FileNotFoundError")


async def test_a_fork_bomb_takes_no_processes_from_another_submission() -> None:
    """The kernel counts them by user: each run has one of its own, or without root a user namespace that counts."""
    users = [(await _run("import os\nprint(os.getuid())"))[0].output.strip() for _ in range(2)]
    assert len(set(users)) == (2 if os.geteuid() == 0 else 1)


async def test_an_unknown_kernel_is_the_bundles_fault() -> None:
    with pytest.raises(EvaluatorFault, match="kernel cobol is not installed"):
        await _run("1", kernel="cobol")


async def test_without_a_sandbox_the_same_runner_works() -> None:
    run = NotebookRun(
        notebook="n",
        kernel="python3",
        cells=(RunCell(key="0", source="x = 1"), RunCell(key="1", source="assert x == 2")),
    )
    result = await run_notebook(sandbox("none"), run, data={}, execution=Execution(kernel_timeout_seconds=SECONDS))
    assert [cell.reason for cell in result.cells] == ["", "AssertionError"]


def test_it_works_inside_another_bubblewrap_as_an_unprivileged_user(tmp_path: Path) -> None:
    """As a worker pod on a process node: the agent's bubblewrap, another uid where the agent is root, ours inside."""
    script = tmp_path / "nested.py"
    script.write_text(_NESTED)
    checkout = Path(__file__).resolve().parents[2]
    visible = [Path(sys.prefix), Path(sys.base_prefix), checkout / "services", checkout / "crds", script]
    parents = {parent for path in visible for parent in path.parents} - {Path("/"), Path("/tmp")}
    command = [
        "bwrap",
        "--ro-bind",
        "/usr",
        "/usr",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--perms",
        "1777",
        "--tmpfs",
        "/tmp",
    ]
    for name in ("/bin", "/sbin", "/lib", "/lib64"):
        command += ["--symlink", os.readlink(name), name] if os.path.islink(name) else ["--ro-bind", name, name]
    command += ["--ro-bind", "/etc", "/etc"]
    for folder in sorted(parents):
        if not folder.is_relative_to("/usr"):
            command += ["--perms", "0755", "--dir", str(folder)]
    for path in visible:
        command += ["--ro-bind", str(path), str(path)]
    is_root = os.geteuid() == 0
    uid = 1234 if is_root else os.geteuid()
    change = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs") if is_root else ()
    command += ["--bind", "/proc", "/proc", "--", *change]
    done = subprocess.run(
        [*command, sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.split() == [f"uid={uid}", "passed", "PermissionError"], done.stderr[-2000:]
    assert shutil.which("bwrap")


_NESTED = """
import asyncio, os
from espalier_api.gradingjob import Execution
from espalier_grading.execute import run_notebook
from espalier_grading.model import NotebookRun, RunCell
from espalier_grading.sandbox import Bubblewrap

sources = ("assert True", "import socket; socket.create_connection(('192.0.2.1', 80), 2)")
cells = tuple(RunCell(key=str(i), source=s) for i, s in enumerate(sources))
run = NotebookRun(notebook="n", kernel="python3", cells=cells)
cells = asyncio.run(run_notebook(Bubblewrap(), run, data={}, execution=Execution(kernel_timeout_seconds=20))).cells
print(f"uid={os.getuid()}", cells[0].reason or "passed", cells[1].reason)
"""
