"""Runs inside an image at the end of its build: every module of the program's packages can be imported.

A library or a Debian package that the image lacks would otherwise be noticed by the first pod that needs it.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys


def main(*packages: str) -> None:
    """Import all of them; an ImportError ends the build."""
    for package in packages:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.endswith(".__main__"):
                importlib.import_module(module.name)


if __name__ == "__main__":
    main(*sys.argv[1:])
