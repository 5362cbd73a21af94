"""The process runtime with real shims and sandbox: what Kubernetes promises of a container holds of a process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from espalier_kit.errors import Retryable
from espalier_node import agent
from espalier_node.logs import Wish, show
from espalier_node.process import ProcessRuntime
from espalier_node.runtime import Mount
from espalier_node.settings import NodeSettings
from tests.support.shims import EXPECTED_USER, UID, config, ended, living, make_runtime


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[ProcessRuntime]:
    async with living(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [("exit 0", 0, "Completed"), ("exit 78", 78, "Error"), ("kill -9 $$", 137, "Error"), ("kill $$", 143, "Error")],
    ids=["success", "failure", "killed", "terminated"],
)
async def test_exit_status(runtime: ProcessRuntime, script: str, code: int, reason: str) -> None:
    run, _ = await ended(runtime, "sh", "-c", script)
    assert (run.exit_code, run.reason) == (code, reason)
    assert run.finished_at is not None
    assert run.finished_at >= run.started_at


async def test_both_streams_and_a_last_line_without_an_end(runtime: ProcessRuntime) -> None:
    _, text = await ended(runtime, "sh", "-c", "echo out; echo err >&2; printf end")
    assert sorted(text.splitlines()) == ["end", "err", "out"]


async def test_a_long_line_is_whole_again(runtime: ProcessRuntime) -> None:
    _, text = await ended(runtime, "sh", "-c", "head -c 40000 /dev/zero | tr '\\0' x; echo; echo next")
    assert [len(line) for line in text.splitlines()] == [40000, 4]


async def test_logs_are_rotated(tmp_path: Path) -> None:
    runtime = make_runtime(tmp_path, log_max_bytes=2000)
    _, text = await ended(runtime, "sh", "-c", "for i in $(seq 200); do echo line $i; done")
    path = runtime.log_path(UID, "main")
    assert path is not None
    assert path.stat().st_size < 3000
    assert text.endswith("line 199\nline 200\n")


async def test_a_command_that_is_not_there_is_a_sentence(runtime: ProcessRuntime) -> None:
    run, text = await ended(runtime, "no-such-program")
    assert run.exit_code == 127
    assert "cannot start no-such-program: it (or /) does not exist in this container" in text


async def test_the_view_is_the_pods_own(runtime: ProcessRuntime, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o777)
    (tmp_path / "data").chmod(0o777)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "a").write_text("1")
    mounts = (Mount(tmp_path / "data", "/data"), Mount(tmp_path / "config", "/etc/app", is_read_only=True))
    script = (
        "id -u; hostname; cat /etc/app/a; echo; getent hosts pod-a | cut -d' ' -f1; echo kept > /data/x;"
        "touch /etc/app/b 2>/dev/null && echo bad; touch /x 2>/dev/null && echo bad; touch /tmp/x && echo fine;"
        f"ls {tmp_path}/config 2>/dev/null && echo bad; cat /proc/self/environ | tr '\\0' '\\n' | grep SECRET"
    )
    _, text = await ended(runtime, "sh", "-c", script, mounts=mounts)
    assert text.splitlines() == [str(EXPECTED_USER), "pod-a", "1", "127.77.1.9", "fine", "SECRET=hush"]
    assert (tmp_path / "data" / "x").read_text() == "kept\n"


async def test_secrets_are_on_no_command_line(runtime: ProcessRuntime) -> None:
    run = await runtime.start(config("sleep", "60"))
    shims = [p for p in psutil.process_iter(["cmdline"]) if any("shim.py" in a for a in p.info["cmdline"] or ())]
    family = [process for shim in shims for process in (shim, *shim.children(recursive=True))]
    assert run.pid in {process.pid for process in family}
    assert not any("hush" in " ".join(process.cmdline()) for process in family)


async def test_commands_run_inside(runtime: ProcessRuntime) -> None:
    await runtime.start(config("sleep", "60"))
    inside = await runtime.execute(UID, "main", ("sh", "-c", "id -u; echo $SECRET; cat /proc/1/comm"), timeout_s=5)
    assert (inside.exit_code, inside.output.split()) == (0, [str(EXPECTED_USER), "hush", "bwrap"])
    assert (await runtime.execute(UID, "main", ("false",), timeout_s=5)).exit_code == 1
    with pytest.raises(Retryable, match=r"longer than 0\.2 s"):
        await runtime.execute(UID, "main", ("sleep", "9"), timeout_s=0.2)


async def test_a_command_in_a_dead_container_is_refused(runtime: ProcessRuntime) -> None:
    await ended(runtime, "true")
    with pytest.raises(Retryable, match="main is not running"):
        await runtime.execute(UID, "main", ("true",), timeout_s=5)


async def test_terminate_asks_the_main_process_and_kill_ends_all(runtime: ProcessRuntime) -> None:
    await runtime.start(config("sleep", "60", name="polite"))
    runtime.terminate(UID, "polite")
    assert (await runtime.wait(UID, "polite")).exit_code == 143
    run = await runtime.start(config("sh", "-c", "trap '' TERM; sleep 60 & sleep 60; sleep 60", name="stubborn"))
    family = psutil.Process(run.pid).children(recursive=True)
    runtime.kill(UID, "stubborn")
    assert (await runtime.wait(UID, "stubborn")).exit_code == 137
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family)


async def test_another_runtime_finds_what_runs_and_what_ended(runtime: ProcessRuntime, tmp_path: Path) -> None:
    lives = await runtime.start(config("sleep", "60", name="lives"))
    await ended(runtime, "sh", "-c", "exit 5", name="ended", streak=2)
    successor = make_runtime(tmp_path)
    assert successor.pods() == (UID,)
    assert successor.containers(UID) == ("ended", "lives")
    assert successor.runs(UID, "lives") == (lives,)
    (run,) = successor.runs(UID, "ended")
    assert (run.exit_code, run.streak) == (5, 2)
    successor.kill(UID, "lives")
    assert (await successor.wait(UID, "lives")).exit_code == 137


async def test_a_killed_shim_takes_its_container_along(runtime: ProcessRuntime) -> None:
    run = await runtime.start(config("sleep", "60"))
    (shim,) = [
        process for process in psutil.Process(run.pid).parents() if any("shim.py" in a for a in process.cmdline())
    ]
    container = psutil.Process(run.pid)
    os.kill(shim.pid, signal.SIGKILL)
    told = await runtime.wait(UID, "main")
    assert (told.exit_code, told.reason) == (137, "ContainerStatusUnknown")
    psutil.wait_procs([container], timeout=5)
    assert not container.is_running() or container.status() == psutil.STATUS_ZOMBIE


async def test_a_pid_that_now_belongs_to_another_is_not_ours(runtime: ProcessRuntime, tmp_path: Path) -> None:
    await runtime.start(config("sleep", "60"))
    identity = tmp_path / "pods" / UID / "containers" / "main" / "0" / "identity.json"
    kept = identity.read_text()
    identity.write_text('{"shim": "another boot/1"}')
    assert not runtime.runs(UID, "main")[0].is_running
    identity.write_text(kept)


async def test_two_runs_are_kept(runtime: ProcessRuntime) -> None:
    for attempt in range(3):
        await ended(runtime, "sh", "-c", f"echo {attempt}", attempt=attempt)
    assert [run.attempt for run in runtime.runs(UID, "main")] == [2, 1]
    previous = runtime.log_path(UID, "main", previous=True)
    assert previous is not None
    assert b"".join(show(previous, Wish())) == b"1\n"


async def test_a_termination_message_is_read(runtime: ProcessRuntime) -> None:
    run, _ = await ended(runtime, "sh", "-c", "echo because > /dev/termination-log; exit 1")
    assert run.message == "because\n"


async def test_a_sandbox_inside_the_sandbox(runtime: ProcessRuntime) -> None:
    inner = (
        "bwrap --unshare-all --die-with-parent --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib"
        " --symlink usr/lib64 /lib64 --proc /proc --dev /dev --tmpfs /tmp ls -d /proc/self /tmp"
    )
    run, text = await ended(runtime, "sh", "-c", inner)
    assert (run.exit_code, text) == (0, "/proc/self\n/tmp\n")


async def test_this_installation_runs_inside(runtime: ProcessRuntime) -> None:
    run, text = await ended(
        runtime, "espalier-node", "--version",
        environment={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": "/tmp"},
    )  # fmt: skip
    assert run.exit_code == 0, text
    assert text.startswith("espalier-node ")


async def test_a_volume_above_the_interpreter_does_not_hide_it(runtime: ProcessRuntime, tmp_path: Path) -> None:
    top = Path("/") / Path(sys.prefix).parts[1]
    (tmp_path / "top").mkdir()
    mounts = (Mount(tmp_path / "top", str(top)),)
    run, text = await ended(runtime, sys.executable, "-c", "import espalier_kit", mounts=mounts)
    assert run.exit_code == 0, text


async def test_model_servers_are_nice(tmp_path: Path) -> None:
    _, text = await ended(make_runtime(tmp_path, nice=7), "nice")
    assert int(text) == os.nice(0) + 7


async def test_every_pod_of_a_state_directory_can_be_killed(runtime: ProcessRuntime, tmp_path: Path) -> None:
    for name in ("one", "two"):
        await runtime.start(config("sleep", "60", name=name))
    fields = {"name": "n", "address": "127.77.1.1", "state_dir": tmp_path, "bootstrap_kubeconfig": tmp_path / "b"}
    assert agent.kill_pods(NodeSettings.model_validate(fields)) == 2
    assert [(await runtime.wait(UID, name)).exit_code for name in ("one", "two")] == [137, 137]
