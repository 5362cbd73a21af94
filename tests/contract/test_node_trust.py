"""What a container may not do to its node, nor a bad moment to a container: with real shims and sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import sys
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from espalier_kit.errors import Retryable
from espalier_node import shim
from espalier_node.machine.base import View, Wrapped
from espalier_node.machine.linux import LinuxMachine
from espalier_node.process import ProcessRuntime
from espalier_node.runtime import Mount
from tests.support.shims import EXPECTED_USER, IS_ROOT, UID, USER, config, ended, living, make_runtime, shims_of

DEADLINE_S = 20.0


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[ProcessRuntime]:
    async with living(tmp_path) as made:
        yield made


@pytest.fixture
def data(tmp_path: Path) -> Mount:
    """A volume that everybody may write to."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o777)
    return Mount(tmp_path / "data", "/data")


async def test_programs_that_a_pod_lays_over_the_machines_are_never_run(
    runtime: ProcessRuntime, tmp_path: Path, data: Mount
) -> None:
    (tmp_path / "evil").mkdir()
    for name in ("mount", "setpriv", "chroot"):
        (tmp_path / "evil" / name).write_text("#!/bin/sh\nid -u > /data/ran\nexit 1\n")
        (tmp_path / "evil" / name).chmod(0o755)
    mounts = (data, Mount(tmp_path / "evil", "/usr/sbin"), Mount(tmp_path / "evil" / "setpriv", "/usr/bin/setpriv"))
    await runtime.start(config("sleep", "60", mounts=mounts))
    inside = await runtime.execute(UID, "main", ("id", "-u"), timeout_s=5)
    assert (inside.output.strip(), list(data.source.iterdir())) == (str(EXPECTED_USER), [])


async def test_a_pods_own_list_of_users_does_not_say_who_it_is(runtime: ProcessRuntime, tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text(f"root:x:0:0::/:/bin/sh\n{USER}:x:0:0::/:/bin/sh\n")
    (tmp_path / "group").write_text(f"root:x:0:\n{USER}:x:0:\n7:x:0:\n")
    mounts = tuple(Mount(tmp_path / name, f"/etc/{name}", is_read_only=True) for name in ("passwd", "group"))
    command = ("sh", "-c", "id -u; id -g; id -G")
    _, first = await ended(runtime, *command, name="first", mounts=mounts, groups=(7,))
    await runtime.start(config("sleep", "60", mounts=mounts, groups=(7,)))
    second = (await runtime.execute(UID, "main", command, timeout_s=5)).output
    expected = [str(number) for number in ((USER, USER, USER, 7) if IS_ROOT else (os.geteuid(), os.getegid()))]
    assert [text.split()[: len(expected)] for text in (first, second)] == [expected, expected]


async def test_no_capability_is_left_and_none_can_be_had(runtime: ProcessRuntime) -> None:
    command = ("grep", "-E", "^(Cap|NoNewPrivs|Seccomp:)", "/proc/self/status")
    _, first = await ended(runtime, *command, name="first")
    await runtime.start(config("sleep", "60"))
    second = (await runtime.execute(UID, "main", command, timeout_s=5)).output
    sets = ("CapInh", "CapPrm", "CapEff", "CapAmb", *(("CapBnd",) if IS_ROOT else ()))
    for found in (dict(line.split(":\t") for line in text.splitlines()) for text in (first, second)):
        assert {name: int(found[name], 16) for name in sets} == dict.fromkeys(sets, 0)
        assert found["NoNewPrivs"] == "1" or not IS_ROOT


async def test_the_interpreters_place_in_a_volume_is_not_made_through_a_link(
    runtime: ProcessRuntime, tmp_path: Path
) -> None:
    _, top, step, *_ = Path(sys.prefix).parts
    for name in ("volume", "beside"):
        (tmp_path / name).mkdir()
    (tmp_path / "volume" / step).symlink_to("../beside")
    with pytest.raises(Retryable, match="Not a directory"):
        await runtime.start(config("true", mounts=(Mount(tmp_path / "volume", f"/{top}"),)))
    assert list((tmp_path / "beside").iterdir()) == []


async def test_a_part_of_a_volume_is_what_it_was_when_it_was_looked_at(runtime: ProcessRuntime, tmp_path: Path) -> None:
    part, secret = tmp_path / "volume" / "a" / "part", tmp_path / "secret"
    for directory in (part, secret):
        directory.mkdir(parents=True)
        (directory / directory.name).touch()
    mounts = (Mount(part, "/m", volume=tmp_path / "volume"), Mount(part / "part", "/f", volume=tmp_path / "volume"))
    _, text = await ended(runtime, "ls", "/m", "/f", mounts=mounts)
    assert text.split() == ["/f", "/m:", "part"]
    part.rename(tmp_path / "volume" / "away")
    part.symlink_to(secret)  # by another container, after the agent looked
    _, text = await ended(runtime, "ls", "/m", mounts=mounts[:1], attempt=1)
    assert ("cannot start" in text, "secret" in text.split()) == (IS_ROOT, not IS_ROOT)


async def test_only_the_end_of_an_endless_message_is_read(runtime: ProcessRuntime) -> None:
    script = "truncate -s 64M /dev/termination-log && printf because >> /dev/termination-log; exit 1"
    _, text = await ended(runtime, "sh", "-c", script)
    assert text == ""
    tracemalloc.start()
    (run,) = runtime.runs(UID, "main")
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert run.message == "because".rjust(4096, "\0")
    assert most_bytes < 1 << 20


class GatedMachine(LinuxMachine):
    """Builds no view before it is told to."""

    def __init__(self, state: Path) -> None:
        super().__init__(state)
        self._gate = state / "gate"
        os.mkfifo(self._gate)

    def wrap(self, view: View, command: tuple[str, ...]) -> Wrapped:
        wrapped = super().wrap(view, command)
        waiting = ("/bin/sh", "-c", f'read line < {self._gate}; exec "$@"', "sh")
        return dataclasses.replace(wrapped, argv=(*waiting, *wrapped.argv))

    async def somebody_waits(self) -> int:
        """The gate, once a start has come to it: what is written there lets it go on."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                with contextlib.suppress(OSError):
                    return os.open(self._gate, os.O_WRONLY | os.O_NONBLOCK)
                await asyncio.sleep(0.01)


def open_gate(gate: int, shims: list[psutil.Process]) -> None:
    """And wait until the shims have ended."""
    os.write(gate, b"go\n")
    os.close(gate)
    gone, alive = psutil.wait_procs(shims, timeout=DEADLINE_S)
    assert gone
    assert not alive


async def test_a_start_that_comes_too_late_runs_nothing(tmp_path: Path, data: Mount) -> None:
    machine = GatedMachine(tmp_path)
    runtime = make_runtime(tmp_path, machine=machine, start_s=3.0)
    with pytest.raises(Retryable, match="did not start within 3 s"):
        await runtime.start(config("touch", "/data/ran", mounts=(data,)))
    open_gate(await machine.somebody_waits(), shims_of(tmp_path))
    assert list(data.source.iterdir()) == []
    assert runtime.runs(UID, "main") == ()


async def test_a_start_that_an_agent_did_not_live_to_see_gives_way_to_the_next(tmp_path: Path, data: Mount) -> None:
    machine = GatedMachine(tmp_path)
    made = config("sh", "-c", "echo ran >> /data/ran", mounts=(data,))
    first = asyncio.create_task(make_runtime(tmp_path, machine=machine).start(made))
    gate, shims = await machine.somebody_waits(), shims_of(tmp_path)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    async with living(tmp_path) as successor:
        await successor.start(made)
        run = await successor.wait(UID, "main")
        open_gate(gate, shims)
        assert successor.runs(UID, "main") == (run,)
    assert (data.source / "ran").read_text() == "ran\n"


async def test_a_run_that_no_agent_knows_of_gives_way_to_the_next(runtime: ProcessRuntime, tmp_path: Path) -> None:
    made = config("sleep", "60")
    lost = psutil.Process((await runtime.start(made)).pid)
    run = await make_runtime(tmp_path).start(made)
    assert psutil.wait_procs([lost], timeout=DEADLINE_S)[1] == []
    assert runtime.runs(UID, "main") == (run,)


async def test_a_full_disk_does_not_make_a_failure_of_a_success(tmp_path: Path) -> None:
    """A shim by itself, on a file system of a few pages that its container's command fills."""
    fill = "cat <&3 >/dev/null; head -c 1M /dev/zero > filler; exit 0"
    (tmp_path / "spec.json").write_text(json.dumps({
        "argv": ["/bin/sh", "-c", fill], "env": {"PATH": "/usr/bin:/bin"}, "info_fd": 4, "has_info": False,
        "payload_fd": 3, "nice": 0, "held": [], "log_max_bytes": 1 << 20,
    }))  # fmt: skip
    (tmp_path / "payload.json").write_text("{}")
    script = (
        'mkdir disk && mount -t tmpfs -o size=64k disk disk && cp *.json disk && "$@" disk &&'
        ' timeout 20 sh -c "until test -e disk/exit.json; do sleep 0.05; done";'
        " stat -f -c %f disk; cat disk/exit.json"
    )
    own_mounts = ("unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh")
    process = await asyncio.create_subprocess_exec(
        *own_mounts, sys.executable, "-I", "-S", shim.__file__, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    free, _, ending = said.decode().partition("\n")
    assert free == "0"
    assert json.loads(ending)["exit_code"] == 0
