"""What becomes of a notebook's cells, from the lines that the sandboxed runner wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from espalier_api.gradingjob import Execution
from espalier_grading.check import check
from espalier_grading.execute import memory_bytes, read_result, request
from espalier_grading.model import NotebookRun, RunCell
from espalier_grading.sandbox import Finished, bwrap_command
from espalier_kit.execution import EvaluatorFault, PlatformFault

RUN = NotebookRun(
    notebook="n", kernel="python3", cells=(RunCell(key="n/a", source="1"), RunCell(key="n/t", source="2", test="n/t"))
)
STARTED = {"event": "started"}
FINISHED = {"event": "finished"}


def _cell(key: str, reason: str = "") -> dict[str, object]:
    return {"event": "cell", "key": key, "reason": reason, "message": "", "output": "", "seconds": 0.1}


def _finished(*events: dict[str, object], code: int = 0, is_timeout: bool = False, noise: str = "") -> Finished:
    lines = "".join(json.dumps(event) + "\n" for event in events)
    return Finished(code, (noise + lines).encode(), "what bwrap said", is_timeout)


@pytest.mark.parametrize(
    ("finished", "reasons"),
    [
        pytest.param(_finished(STARTED, _cell("n/a"), _cell("n/t"), FINISHED), ["", ""], id="clean"),
        pytest.param(
            _finished(STARTED, _cell("n/a"), _cell("n/t", "ValueError"), FINISHED), ["", "ValueError"], id="error"
        ),
        pytest.param(
            _finished(STARTED, _cell("n/a", "KernelDied"), _cell("n/t", "KernelDied"), FINISHED),
            ["KernelDied", "KernelDied"],
            id="died",
        ),
        pytest.param(_finished(STARTED, _cell("n/a"), is_timeout=True), ["", "Timeout"], id="timeout"),
        pytest.param(_finished(STARTED, code=137), ["Killed", "Killed"], id="killed"),
        pytest.param(
            replace(_finished(STARTED, code=137), is_out_of_memory=True), ["OutOfMemory", "OutOfMemory"], id="memory"
        ),
        pytest.param(
            replace(_finished(STARTED, _cell("n/a"), _cell("n/t", "KernelDied"), FINISHED), is_out_of_memory=True),
            ["", "OutOfMemory"],
            id="memory-of-the-kernel",
        ),
        pytest.param(
            _finished(STARTED, _cell("n/a"), FINISHED, noise='no json\n[1]\n"x"\n'), ["", "NotRun"], id="noise"
        ),
    ],
)
def test_every_cell_has_a_reason_or_ran(finished: Finished, reasons: list[str]) -> None:
    result = read_result(RUN, finished, is_last_try=True)
    assert [cell.reason for cell in result.cells] == reasons


def test_a_sandbox_that_never_started_is_our_fault() -> None:
    with pytest.raises(PlatformFault, match="what bwrap said"):
        read_result(RUN, _finished(code=1), is_last_try=True)


def test_a_kernel_that_is_not_there_is_the_bundles_fault() -> None:
    with pytest.raises(EvaluatorFault, match="kernel python3 is not installed"):
        read_result(RUN, _finished({"event": "failed", "reason": "KernelNotFound"}), is_last_try=True)


def test_an_unexplained_end_is_tried_once_more_before_it_counts() -> None:
    with pytest.raises(PlatformFault, match="without a word"):
        read_result(RUN, _finished(STARTED, code=137), is_last_try=False)


def test_only_a_clean_run_of_a_test_earns_its_points() -> None:
    result = read_result(RUN, _finished(STARTED, _cell("n/a"), _cell("n/t", "Timeout"), FINISHED), is_last_try=True)
    (test, absent) = check({"n/t": 2.0, "n/u": 1.0}, [result])
    assert (test.earned, test.reason) == (0, "Timeout")
    assert (absent.earned, absent.reason) == (0, "NotRun")


@pytest.mark.parametrize(
    ("quantity", "wanted"), [("1Gi", 2**30), ("512Mi", 2**29), ("64Ki", 2**16), ("1.5G", 1_500_000_000), ("100", 100)]
)
def test_memory_quantities(quantity: str, wanted: int) -> None:
    assert memory_bytes(quantity) == wanted


def test_the_request_carries_all_limits() -> None:
    wish = request(RUN, scratch=Path("/s"), execution=Execution(kernel_timeout_seconds=10, memory="1Gi"), processes=7)
    assert (wish["limits"]["RLIMIT_DATA"], wish["limits"]["RLIMIT_NPROC"]) == (2**30, 7)
    assert (wish["notebook_seconds"], wish["cell_seconds"]) == (10, 5)


@pytest.mark.parametrize("is_root", [True, False], ids=["root", "unprivileged"])
def test_the_sandbox_has_no_network_no_environment_and_a_read_only_root(is_root: bool) -> None:
    command = bwrap_command(scratch=Path("/tmp/s"), readable=Path("/x/kernel.py"), is_root=is_root, filter_=9)
    assert command[command.index("--seccomp") + 1] == "9"
    assert {"--unshare-net", "--unshare-pid", "--clearenv", "--die-with-parent"} <= set(command)
    assert command[command.index("--remount-ro") + 1] == "/"
    assert ("setpriv" in command) == is_root
    assert ("--unshare-user" in command) != is_root
    assert "--bind" not in command


def test_half_a_surrogate_pair_does_not_spoil_the_result() -> None:
    said: dict[str, object] = {**_cell("n/a", "E\ud800"), "message": "\udfff", "output": "fine \U0001f600"}
    result = read_result(RUN, _finished(STARTED, said, _cell("n/t"), FINISHED), is_last_try=True)
    found = result.cells[0]
    assert (found.reason, found.message, found.output) == ("E?", "?", "fine \U0001f600")
    assert result.model_dump_json()
