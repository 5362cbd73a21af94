"""What `espalier-sandbox` decides without a container: its filter, its frames, whether it is fit to run anything."""

from __future__ import annotations

import errno
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from espalier_kit.errors import Permanent
from espalier_sandbox import fitness, memory, seccomp, wire
from espalier_sandbox.fitness import Facts

FIT = Facts(
    pid=1, uid=65533, capabilities=0, no_new_privileges=True, is_root_writable=False, tokens=(), kernel="6.1.0 #1 SMP"
)
ALLOW, KILL = 0x7FFF0000, 0x80000000
X86, ARM = seccomp.MACHINES["x86_64"], seccomp.MACHINES["aarch64"]


def verdict(machine: seccomp.Machine, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the kernel would make of a system call: the program, interpreted."""
    code = seccomp.program(machine)
    steps = [struct.unpack_from("<HBBI", code, at) for at in range(0, len(code), 8)]
    data = struct.pack("<IIQ", number, machine.audit if audit is None else audit, 0)
    data += b"".join(struct.pack("<Q", value) for value in (*arguments, *(0,) * 6)[:6])
    at = accumulator = 0
    tests: dict[int, Callable[[int, int], bool]] = {
        0x15: lambda a, k: a == k, 0x35: lambda a, k: a >= k, 0x45: lambda a, k: bool(a & k)
    }  # fmt: skip
    while True:
        operation, yes, no, k = steps[at]
        at += 1
        if operation == 0x06:
            return int(k)
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        else:
            at += yes if tests[operation](accumulator, k) else no


def refused(number: int) -> int:
    return 0x00050000 | number


@pytest.mark.parametrize(
    ("machine", "read", "socket", "socketpair", "ptrace", "unshare", "clone"),
    [(X86, 0, 41, 53, 101, 272, 56), (ARM, 63, 198, 199, 117, 97, 220)],
    ids=["x86_64", "aarch64"],
)
def test_the_filter_call_by_call(
    machine: seccomp.Machine, read: int, socket: int, socketpair: int, ptrace: int, unshare: int, clone: int
) -> None:
    assert verdict(machine, read) == ALLOW
    assert verdict(machine, socket, 1) == verdict(machine, socketpair, 1) == ALLOW
    for family in (2, 10, 17, 40):
        assert verdict(machine, socket, family) == verdict(machine, socketpair, family) == refused(errno.EACCES)
    assert verdict(machine, socket, 16) == refused(errno.EOPNOTSUPP)
    assert verdict(machine, ptrace) == verdict(machine, unshare) == verdict(machine, 425) == refused(errno.EPERM)
    assert verdict(machine, 435) == refused(errno.ENOSYS)
    assert verdict(machine, clone, 0x003D0F00) == ALLOW, "a thread"
    for namespace in (0x00020000, 0x02000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(machine, clone, namespace | 17) == refused(errno.EPERM)
    assert verdict(machine, read, audit=0x40000003) == KILL, "another architecture's numbers"


@pytest.mark.parametrize(
    ("machine", "numbers"), [(X86, (29, 64, 68, 240)), (ARM, (194, 190, 186, 180))], ids=["x86_64", "aarch64"]
)
def test_no_memory_and_no_message_outlives_who_made_it(machine: seccomp.Machine, numbers: tuple[int, ...]) -> None:
    assert {verdict(machine, number) for number in numbers} == {refused(errno.EPERM)}


def test_the_second_table_of_x86_64_leads_nowhere() -> None:
    assert verdict(X86, 0x40000000 | 41, 2) == refused(errno.EPERM)


def test_the_kernel_takes_the_filter_and_children_cannot_take_it_off() -> None:
    script = (
        "import socket, subprocess, sys\nfrom espalier_sandbox import seccomp\n"
        "seccomp.install(seccomp.program(seccomp.machine_now()))\n"
        "code = 'import socket; socket.socket()'\n"
        "done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)\n"
        "print(done.stderr.splitlines()[-1])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "PermissionError: [Errno 13] Permission denied"


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (replace(FIT, pid=7), "first process"),
        (replace(FIT, uid=0), "set runAsUser"),
        (replace(FIT, capabilities=1 << 21), "drop ALL"),
        (replace(FIT, no_new_privileges=False), "allowPrivilegeEscalation"),
        (replace(FIT, is_root_writable=True), "readOnlyRootFilesystem"),
        (replace(FIT, tokens=("/var/run/secrets/espalier",)), "a token is mounted at /var/run/secrets/espalier"),
    ],
)
def test_a_container_that_confines_too_little_is_told_what_to_change(facts: Facts, said: str) -> None:
    assert fitness.problems(FIT, runtime="container") == ()
    (problem,) = fitness.problems(facts, runtime="container")
    assert said in problem


def test_only_gvisors_kernel_is_gvisor() -> None:
    inside = replace(FIT, kernel=f"{fitness.GVISOR_RELEASE} {fitness.GVISOR_VERSION}")
    assert fitness.problems(inside, runtime="gvisor") == ()
    assert fitness.problems(FIT, runtime="gvisor") == ("gVisor was asked for, but the kernel here is 6.1.0 #1 SMP",)


@pytest.mark.parametrize(
    ("text", "kills"),
    [("low 0\nmax 3\noom 2\noom_kill 2\n", 2), ("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n", 5), ("", 0)],
    ids=["version 2", "version 1", "nothing"],
)
def test_the_kernels_own_count_of_processes_ended_for_want_of_memory(text: str, kills: int) -> None:
    assert memory.count(text) == kills


def test_requests_and_answers_survive_the_socket() -> None:
    run = wire.Run(("python", "x"), "/tmp/a", {"PATH": "/bin"}, 9.5, 100, 32)
    assert wire.run_from(wire.encode(run)) == run
    end = wire.End(-9, "gone", is_timeout=True, is_out_of_memory=True)
    assert wire.end_from(wire.encode(end)) == end
    made = wire.frame(wire.Kind.STDIN, b"abc")
    assert wire.header(made[: wire.HEADER.size], longest=3) == (wire.Kind.STDIN, 3)


@pytest.mark.parametrize(
    ("data", "said"),
    [(struct.pack("!BI", 99, 1), "kind 99"), (struct.pack("!BI", 4, 2**31), "too long")],
)
def test_what_is_no_frame_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(Permanent, match=said):
        wire.header(data, longest=wire.MAX_ANSWER_BYTES)


@pytest.mark.parametrize("body", [b"{", b"[]", json.dumps({"code": 0, "score": 100}).encode()])
def test_an_answer_with_other_fields_is_refused(body: bytes) -> None:
    with pytest.raises(Permanent, match="carries no End"):
        wire.end_from(body)
