"""Runs inside an image while it is built: install what a stage needs from the wheels in /build, and compile it.

Root file systems are read-only at run time, so byte code that is not here now is made again at every start.
"""

from __future__ import annotations

import compileall
import py_compile
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

BUILD = Path("/build")
HOME = Path("/opt/espalier")
CODE = HOME / "code"
PYTHON = HOME / "bin" / "python"
SITE = HOME / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
CORES = 0
"""compileall's word for all of them."""


def main(stage: str) -> None:
    """One stage of images/Dockerfile."""
    if stage == "common":
        create()
    if stage == "source":
        install("--no-deps", f"--target={CODE}", *map(str, (BUILD / "source").glob("*.whl")))
        compile_all(CODE)
    else:
        pins = f"--constraint={BUILD / 'constraints.txt'}"
        install(pins, f"--requirement={BUILD / 'requirements' / stage}.txt")
        data = BUILD / "requirements" / f"{stage}-data.txt"
        if data.is_file():
            install(pins, "--no-deps", f"--requirement={data}")
        compile_all(SITE)


def create() -> None:
    """The environment; the project's own code lies beside it, in a layer of its own."""
    compile_all(Path(sysconfig.get_path("stdlib")))
    venv.create(HOME, with_pip=False, symlinks=True)
    (SITE / "espalier-code.pth").write_text(f"{CODE}\n")
    for script in (HOME / "bin").glob("[aA]ctivate*"):
        script.unlink()


def install(*arguments: str) -> None:
    """pip, which runs from its own wheel and stays outside the image."""
    pip = next((BUILD / "wheels").glob("pip-*.whl"))
    common = ("--no-index", f"--find-links={BUILD / 'wheels'}", "--no-compile", "--no-cache-dir", "--quiet")
    run([str(PYTHON), str(pip / "pip"), "install", "--disable-pip-version-check", *common, *arguments])


def compile_all(directory: Path) -> None:
    """Byte code that is believed without a look at the source: nothing in an image is edited.

    Files that are no Python of this version (templates, tests of a parser) are left out silently, as pip does.
    """
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(str(directory), quiet=2, workers=CORES, invalidation_mode=mode)


def run(command: Sequence[str]) -> None:
    """Run it with its words on our standard error; ends this program if it fails."""
    done = subprocess.run(command, check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main(sys.argv[1])
