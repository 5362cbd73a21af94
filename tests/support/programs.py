"""Programs that a test starts beside itself, each in a process group of its own with its log in one folder."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

DEADLINE_S = 60.0


@dataclass
class Programs:
    """`folder` has the logs, and is where the programs work unless told otherwise."""

    folder: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def begin(
        self, command: Sequence[str], environ: Mapping[str, str], *, name: str = "program", at: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """In the background."""
        with (self.folder / f"{name}-{len(self.running)}.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=at or self.folder, env=environ, stdout=log, stderr=log,
                                       start_new_session=True)
        self.running.append(process)
        return process

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        """SIGTERM, as a service manager or `docker compose stop` sends it; its exit code."""
        os.killpg(process.pid, signal.SIGTERM)
        return process.wait(DEADLINE_S)

    def close(self) -> None:
        """Kill what still runs."""
        for process in self.running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def logs(self) -> str:
        """The end of each."""
        return "\n".join(path.read_text()[-2000:] for path in sorted(self.folder.glob("*.log")))
