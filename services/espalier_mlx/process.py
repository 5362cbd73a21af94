"""What must be settled before MLX is imported: which BLAS it gets and where it may write.

The Linux wheel of MLX carries a reference BLAS, some 30 times slower in batches than OpenBLAS, whose symbols are the
same: preloading the library is enough. That needs one `exec`, since the loader reads `LD_PRELOAD` only at the start.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes.util
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

_OPENBLAS = "libopenblas.so.0"
_MAPS = Path("/proc/self/maps")


def preloading(environ: Mapping[str, str], *, platform: str, library: str | None) -> dict[str, str] | None:
    """The environment to start again with, or None to go on as we are: not Linux, nothing found, or already done."""
    if platform != "linux" or library is None or "libopenblas" in environ.get("LD_PRELOAD", ""):
        return None
    preload = " ".join(filter(None, [library, environ.get("LD_PRELOAD", "")]))
    return {**environ, "LD_PRELOAD": preload, "OPENBLAS_NUM_THREADS": environ.get("OPENBLAS_NUM_THREADS", "1")}


def find_openblas() -> str | None:
    """A path or name that the loader finds, or None."""
    for path in sorted(Path("/usr/lib").glob(f"*/openblas*/{_OPENBLAS}")):
        return str(path)
    return ctypes.util.find_library("openblas")


def restart_with_openblas(arguments: list[str]) -> None:
    """Replace this process by itself with OpenBLAS preloaded, once; returns if there is nothing to do.

    Returns too where a sandbox forbids to execute the interpreter again: slow is better than not at all, and the
    program says which BLAS it has.
    """
    environ = preloading(os.environ, platform=sys.platform, library=find_openblas())
    if environ is not None:
        with contextlib.suppress(OSError):
            os.execve(sys.executable, [sys.executable, "-m", "espalier_mlx", *arguments], environ)


def blas_in_use(*, platform: str, maps: str | None = None) -> str:
    """`openblas`, `accelerate` (macOS) or `reference`: what really is loaded, not what was asked for."""
    if platform == "darwin":
        return "accelerate"
    loaded = _MAPS.read_text() if maps is None else maps
    return "openblas" if "libopenblas" in loaded else "reference"


def settle_temporary_directory() -> None:
    """Give MLX's just-in-time compiler a directory of its own, or switch it off.

    It compiles with g++ into a predictable place below TMPDIR, which another process could race for or plant in.
    Without a writable directory (a read-only root file system) it would fail, so it is told not to.
    """
    try:
        own = tempfile.mkdtemp(prefix="espalier-mlx-")
    except OSError:
        os.environ["MLX_DISABLE_COMPILE"] = "1"
        return
    os.environ["TMPDIR"] = own
    atexit.register(shutil.rmtree, own, ignore_errors=True)
