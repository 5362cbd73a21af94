"""The last step inside a container's file view: take the payload, become the command.

Run as `python -I -S launch.py N`, descriptor N being open on a JSON file of command, environment, working directory.
Environment and arguments travel in the file because on a command line every user of the machine could read them, and
because `LD_PRELOAD` and its kind must not reach the privileged steps before this one. Standard library only.
"""

from __future__ import annotations

import json
import os
import sys

PAYLOAD_FD = 3
NOT_FOUND, NOT_EXECUTABLE = 127, 126


def main() -> None:
    """Never returns: the command, or a sentence on standard error and a shell's exit code."""
    with open(int(sys.argv[1])) as file:
        payload = json.load(file)
    os.umask(0o022)
    code = NOT_EXECUTABLE
    try:
        os.chdir(payload["working_directory"])
        os.execvpe(payload["command"][0], payload["command"], payload["environment"])
    except FileNotFoundError:
        where = f"it (or {payload['working_directory']}) does not exist in this container"
        os.write(2, f"cannot start {payload['command'][0]}: {where}\n".encode())
        code = NOT_FOUND
    except OSError as error:
        os.write(2, f"cannot start {payload['command'][0]}: {error.strerror}\n".encode())
    os._exit(code)


if __name__ == "__main__":
    main()
