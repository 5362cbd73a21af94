"""bubblewrap command lines (pure): a file view of its own, then an unprivileged user.

Some facts shape this. An agent run by root lets bubblewrap build the view *as root* and drops to the pod's user
inside, since only so a second bubblewrap inside the pod (a student's sandbox) may build a view of its own. /proc is
mounted afresh over the machine's: bubblewrap's `--proc` masks parts of it, and the kernel then refuses the inner
sandbox a /proc. Every parent of a mounted path is made explicitly with mode 0755, since an interpreter may live
under a directory (root's home) that the pod's user could not enter.

So root runs a few programs inside the view. The machine's own are therefore laid last, over whatever a pod mounted
(`targets` refuses it before), and none of them may ask who a user is: the pod's /etc/passwd would answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from espalier_node import targets
from espalier_node.machine.base import View

INFO_FD = 4
ESSENTIAL_ETC = (
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "nsswitch.conf", "resolv.conf", "ssl", "ca-certificates",
    "alternatives", "localtime", "timezone", "mime.types", "services", "protocols", "host.conf", "gai.conf", "fonts",
)
"""What programs need of /etc; users, groups and hosts are the pod's own (`process` writes them)."""
_ROOT_PART = 'mount -n -i -t proc proc /proc && exec "$@"'


def command_line(
    view: View, command: Iterable[str], *, bubblewrap: str, is_root: bool, links: dict[str, str], etc: Iterable[str]
) -> tuple[str, ...]:
    """bubblewrap and its options. `links`: this system's symbolic links (`/bin` → `usr/bin`); `etc`: what exists."""
    options = [
        "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", view.hostname, "--die-with-parent",
        "--info-fd", str(INFO_FD),
        *(["--bind", "/proc", "/proc", "--dev", "/dev"] if is_root else ["--proc", "/proc", *_devices()]),
        "--perms", "1777", "--tmpfs", "/dev/shm", "--perms", "1777", "--tmpfs", "/tmp",
        "--perms", "0755", "--dir", "/etc",
        *_flat(("--ro-bind", f"/etc/{name}", f"/etc/{name}") for name in etc),
        *_binds(view),
        *_system(links),
        "--remount-ro", "/", "--chdir", "/",
    ]
    inner = ["/bin/sh", "-c", _ROOT_PART, "sh", *drop(view), *command] if is_root else list(command)
    return (bubblewrap, *options, "--", *inner)


def drop(view: View) -> tuple[str, ...]:
    """From root to the pod's user and groups, without capabilities and with none to be gained.

    setpriv would change the user too, but takes `7` for a name first; chroot's `+7` is a number. So one setpriv keeps,
    over chroot's change of the user, the one capability by which another then drops the rest of what could be had.
    """
    groups = ",".join(f"+{group}" for group in view.groups)
    return (
        "/usr/bin/setpriv", "--securebits=+no_setuid_fixup", "--inh-caps=-all,+setpcap", "--ambient-caps=-all,+setpcap",
        "chroot", f"--userspec=+{view.user}:+{view.group}", f"--groups={groups}", "/",
        "setpriv", "--no-new-privs", "--securebits=-all", "--ambient-caps=-all", "--inh-caps=-all",
        "--bounding-set=-all", "--",
    )


def enter_line(pid: int, view: View, command: Iterable[str], *, nsenter: str, is_root: bool) -> tuple[str, ...]:
    """The command line that runs `command` in the namespaces of `pid`."""
    if is_root:
        flags, inner = ["-m", "-p", "-i", "-u"], [*drop(view), *command]
    else:
        flags, inner = ["-U", "-m", "-p", "-i", "-u", "--preserve-credentials"], list(command)
    return (nsenter, "-t", str(pid), *flags, "--", *inner)


def _system(links: dict[str, str]) -> Iterator[str]:
    for path in targets.SYSTEM:
        if path in links:
            yield from ("--symlink", links[path], path)
        else:
            yield from ("--ro-bind-try", path, path)


def _devices() -> Iterator[str]:
    """What `--dev` makes, without its terminals: for those an ordinary user's bubblewrap nests two user namespaces,
    and no command could enter the container afterwards."""
    yield from ("--perms", "0755", "--tmpfs", "/dev")
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        yield from ("--dev-bind", f"/dev/{name}", f"/dev/{name}")
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        yield from ("--symlink", f"/proc/self/{target}", f"/dev/{name}")


def _binds(view: View) -> Iterator[str]:
    """Outer before inner, so that a volume at /root does not hide an interpreter below it; each with its parents."""
    binds = [*((path, str(path), True) for path in view.readable if not targets.is_system(str(path))), *view.mounts]
    seen = {"/", "/tmp", "/dev", "/etc", *targets.SYSTEM}
    for source, target, is_read_only in sorted(binds, key=lambda bind: len(PurePosixPath(bind[1]).parts)):
        for parent in map(str, reversed(PurePosixPath(target).parents)):
            if parent not in seen and not parent.startswith(("/dev/", "/proc", "/usr/")):
                seen.add(parent)
                yield from ("--perms", "0755", "--dir", parent)
        seen = {path for path in seen if not path.startswith(target + "/")} | {target}
        yield from ("--ro-bind" if is_read_only else "--bind", str(source), target)


def _flat(groups: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for group in groups:
        yield from group


def outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The paths without those inside another, sorted: what is bound once need not be bound again."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return tuple(kept)
