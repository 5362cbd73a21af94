"""A seccomp filter that leaves a program files, processes and memory, and takes the rest of the machine away.

Classic BPF, put together by hand, since it needs no privilege and no library: sockets other than AF_UNIX, new
namespaces, other processes' memory, mounts, keys, tracing, memory and messages that outlive who made them, and the
kernel's rarely tried corners are refused with an errno that the program sees. Whoever installs it cannot take it off,
nor can any child.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from espalier_kit.errors import Permanent

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
"""Offsets in `struct seccomp_data`; arguments are 64 bit, low half first on both machines."""
_X32 = 0x40000000
_AF_UNIX, _AF_NETLINK = 1, 16
_NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET, and CLONE_NEWNS."""
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _FILTER_MODE = 22, 38, 2

_REFUSED: dict[str, tuple[int, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "semget": (64, 190),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "shmget": (29, 194),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
"""System calls by their numbers on x86-64 and on 64-bit ARM (None: it has none)."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One architecture: its audit number, and the calls that are looked at more closely."""

    audit: int
    column: int
    socket: int
    socketpair: int
    clone: int
    clone3: int = 435


MACHINES = {
    "x86_64": Machine(0xC000003E, 0, socket=41, socketpair=53, clone=56),
    "aarch64": Machine(0xC00000B7, 1, socket=198, socketpair=199, clone=220),
}


class _Step(NamedTuple):
    """One instruction; `yes` and `no` are how many steps a jump skips."""

    code: int
    k: int
    yes: int = 0
    no: int = 0


def machine_now() -> Machine:
    """This machine. Raises `Permanent` where the numbers are not known."""
    found = MACHINES.get(platform.machine())
    if found is None:
        raise Permanent(f"no seccomp filter for {platform.machine()}: run on x86_64 or aarch64", reason="NoFilter")
    return found


def program(machine: Machine) -> bytes:
    """The filter as the kernel and `bwrap --seccomp` take it. Pure."""
    return b"".join(struct.pack("<HBBI", step.code, step.yes, step.no, step.k) for step in _steps(machine))


def install(filter_: bytes) -> None:
    """Put it on this process and all that it starts, for good. Raises `Permanent` where the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(filter_, len(filter_))
    header = struct.pack("<HxxxxxxQ", len(filter_) // 8, ctypes.addressof(code))
    for option, value, pointer in ((_PR_SET_NO_NEW_PRIVS, 1, 0), (_PR_SET_SECCOMP, _FILTER_MODE, header)):
        if libc.prctl(option, value, pointer, 0, 0) != 0:
            said = os.strerror(ctypes.get_errno())
            raise Permanent(f"the kernel refuses the seccomp filter: {said}", reason="NoFilter")


def _steps(machine: Machine) -> Iterator[_Step]:
    yield _Step(_LOAD, _ARCHITECTURE)
    yield _Step(_JUMP_EQUAL, machine.audit, yes=1)
    yield _Step(_RETURN, _KILL)
    yield _Step(_LOAD, _NUMBER)
    if machine.column == 0:  # the second table of numbers of x86-64 would go around every rule below
        yield from _refuse(_Step(_JUMP_AT_LEAST, _X32), errno.EPERM)
    for numbers in _REFUSED.values():
        if (number := numbers[machine.column]) is not None:
            yield from _refuse(_Step(_JUMP_EQUAL, number), errno.EPERM)
    # Its flags lie behind a pointer, which a filter cannot follow; libraries fall back to clone.
    yield from _refuse(_Step(_JUMP_EQUAL, machine.clone3), errno.ENOSYS)
    yield _Step(_JUMP_EQUAL, machine.clone, no=3)
    yield _Step(_LOAD, _FIRST_ARGUMENT)
    yield from _refuse(_Step(_JUMP_BITS, _NEW_NAMESPACES), errno.EPERM)
    for number in (machine.socket, machine.socketpair):
        yield _Step(_LOAD, _NUMBER)
        yield _Step(_JUMP_EQUAL, number, no=6)
        yield _Step(_LOAD, _FIRST_ARGUMENT)
        yield _Step(_JUMP_EQUAL, _AF_UNIX, yes=3)
        yield from _refuse(_Step(_JUMP_EQUAL, _AF_NETLINK), errno.EOPNOTSUPP)  # ZeroMQ takes this answer, no other
        yield _Step(_RETURN, _ERRNO | errno.EACCES)
        yield _Step(_RETURN, _ALLOW)
    yield _Step(_RETURN, _ALLOW)


def _refuse(test: _Step, number: int) -> Iterator[_Step]:
    """If `test` holds, the call fails with that errno."""
    yield test._replace(no=1)
    yield _Step(_RETURN, _ERRNO | number)
