"""The sandbox of a one-shot pod, as a process: what student code tries there fails with the cause named."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from espalier_api.gradingjob import Execution
from espalier_grading.execute import run_notebook
from espalier_grading.model import CellResult, NotebookRun, RunCell
from espalier_grading.sandbox_pod import Pod
from espalier_kit.execution import PlatformFault
from tests.support.sandboxes import runs, sandbox_process

SECONDS = 12

FORBIDDEN = {
    "tcp": ("import socket\nsocket.create_connection(('127.0.0.1', 1), 2)", "PermissionError"),
    "udp": ("import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)", "PermissionError"),
    "ipv6": ("import socket\nsocket.socket(socket.AF_INET6)", "PermissionError"),
    "raw": ("import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "PermissionError"),
    "to the machine below": ("import socket\nsocket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)", "PermissionError"),
    "dns": ("import socket\nsocket.getaddrinfo('example.org', 80)", "gaierror"),
    "token": ("open('/var/run/secrets/espalier/token')", "FileNotFoundError"),
    "system": ("open('/usr/x', 'w')", "OSError"),
    "interpreter": (f"open({sys.prefix!r} + '/x', 'w')", "OSError"),
    "first process": ("open('/proc/1/environ').read()", "PermissionError"),
    "memory of the first process": ("open('/proc/1/mem', 'rb')", "PermissionError"),
    "its pipes": ("import os\nos.listdir('/proc/1/fd')", "PermissionError"),
    "become root": ("import os\nos.setuid(0)", "PermissionError"),
    "trace": (
        "import ctypes, os\nc = ctypes.CDLL(None, use_errno=True)\n"
        "if c.ptrace(16, os.getppid(), 0, 0): raise PermissionError(ctypes.get_errno())",
        "PermissionError",
    ),
    "namespace": (
        "import ctypes, os\nc = ctypes.CDLL(None, use_errno=True)\n"
        "if c.unshare(0x10000000): raise PermissionError(ctypes.get_errno())",
        "PermissionError",
    ),
    "ring": (
        "import ctypes, os\nc = ctypes.CDLL(None, use_errno=True)\n"
        "if c.syscall(425, 8, ctypes.create_string_buffer(256)) < 0: raise PermissionError(ctypes.get_errno())",
        "PermissionError",
    ),
    "large file": ("open('big', 'wb').write(b'x' * (200 << 20))", "OSError"),
    "memory": ("x = bytearray(3 << 30)", "MemoryError"),
}


@pytest.fixture
async def pod(place: tuple[str, subprocess.Popen[str]]) -> AsyncIterator[Pod]:
    with closing(Pod(place[0])) as made:
        yield made


async def run(pod: Pod, *sources: str, data: dict[str, bytes] | None = None, last: bool = True) -> list[CellResult]:
    cells = tuple(RunCell(key=str(i), source=source) for i, source in enumerate(sources))
    limits = Execution(sandbox="container", kernel_timeout_seconds=SECONDS, memory="1Gi")
    wish = NotebookRun(notebook="n", kernel="python3", cells=cells)
    return list((await run_notebook(pod, wish, data=data or {}, execution=limits, is_last_try=last)).cells)


async def test_what_student_code_may_not_do_fails_by_name_and_the_next_cell_runs(pod: Pod) -> None:
    *tried, after = await run(pod, *(code for code, _ in FORBIDDEN.values()), "assert 1 + 1 == 2")
    assert dict(zip(FORBIDDEN, (cell.reason for cell in tried), strict=True)) == {
        name: cause for name, (_, cause) in FORBIDDEN.items()
    }
    assert after.reason == ""


async def test_the_environment_carries_nothing_of_ours(pod: Pod) -> None:
    (cell,) = await run(pod, "import os\nprint(sorted(k for k in os.environ if 'ESPALIER' in k or 'TOKEN' in k))")
    assert cell.output.strip() == "[]"


async def test_notebooks_of_one_submission_leave_each_other_neither_files_nor_processes(
    pod: Pod, place: tuple[str, subprocess.Popen[str]]
) -> None:
    stays = "import subprocess\nsubprocess.Popen(['sleep', '300'], start_new_session=True)\nopen('/tmp/left', 'w')"
    (first,) = await run(pod, stays, data={"in/x.csv": b"a,b"})
    assert first.reason == ""
    (sandbox,) = psutil.Process(place[1].pid).children()
    assert sandbox.children(recursive=True) == []
    file, data, gone = await run(pod, "open('/tmp/left')", "open('in/x.csv')", "open('/proc/self/stat')")
    assert (file.reason, data.reason, gone.reason) == ("FileNotFoundError", "FileNotFoundError", "")


async def test_an_endless_loop_is_cut_off_and_the_tests_after_it_run(pod: Pod) -> None:
    loop, after = await run(pod, "while True: pass", "assert True")
    assert (loop.reason, after.reason) == ("Timeout", "")


async def test_killing_everything_in_reach_earns_nothing(pod: Pod) -> None:
    cells = await run(pod, "import os, signal\nos.kill(-1, signal.SIGKILL)", "assert True")
    assert all(cell.reason for cell in cells)


async def test_a_sandbox_that_dies_in_the_middle_is_a_fault_of_the_platform_then_of_the_submission(
    pod: Pod, place: tuple[str, subprocess.Popen[str]]
) -> None:
    running = asyncio.create_task(run(pod, "import time; time.sleep(60)", last=False))
    (await runs(place[1])).kill()
    with pytest.raises(PlatformFault, match=r"no kernel started|ended without a word"):
        await running


async def test_only_the_first_to_knock_is_let_in(pod: Pod, place: tuple[str, subprocess.Popen[str]]) -> None:
    knock = f"import socket\nsocket.socket(socket.AF_UNIX).connect(chr(0) + {place[0]!r})"
    (cell,) = await run(pod, knock)
    assert cell.reason == "ConnectionRefusedError"


async def test_sockets_of_others_on_the_same_network_are_out_of_reach(pod: Pod) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"\0espalier-other-{id(pod)}")
        other.listen(1)
        (cell,) = await run(pod, f"import socket\nsocket.socket(socket.AF_UNIX).connect('\\0espalier-other-{id(pod)}')")
    assert cell.reason == "PermissionError"


async def test_a_container_that_confines_nothing_refuses_with_a_sentence(tmp_path: Path) -> None:
    refusal = pytest.raises(PlatformFault, match="set readOnlyRootFilesystem")
    with sandbox_process(tmp_path, is_writable=True) as (name, _), closing(Pod(name)) as pod, refusal as caught:
        await run(pod, "assert True")
    assert caught.value.reason == "SandboxUnfit"


async def test_gvisor_is_never_silently_another_kernel(tmp_path: Path) -> None:
    refusal = pytest.raises(PlatformFault, match="gVisor was asked for, but the kernel here is")
    with sandbox_process(tmp_path, runtime="gvisor") as (name, _), closing(Pod(name)) as pod, refusal:
        await run(pod, "assert True")
