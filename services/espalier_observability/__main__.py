"""`python -m espalier_observability generate | verify`: the chart's files and the page of alerts from their source."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from espalier_observability import alerts, scrape
from espalier_observability.boards import BOARDS
from espalier_observability.panels import to_json

ROOT = Path(__file__).parents[2]
FILES = "charts/espalier/files"


def documents() -> dict[str, str]:
    """Path under the checkout → content."""
    return {
        **{f"{FILES}/dashboards/{board.name}.json": to_json(board) for board in BOARDS},
        f"{FILES}/alerts.yaml": yaml.safe_dump(alerts.rules(), sort_keys=False, width=120),
        f"{FILES}/scrape.yaml": yaml.safe_dump(scrape.configuration(), sort_keys=False, width=120),
        alerts.RUNBOOKS: alerts.page(),
    }


def main(words: list[str]) -> int:
    """Exit code 1 where `verify` finds a difference."""
    if words not in (["generate"], ["verify"]):
        return 2
    stale = [path for path, text in documents().items() if not _is(ROOT / path, text)]
    for path in stale:
        if words == ["generate"]:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(documents()[path])
        else:
            pass
    return int(words == ["verify"] and bool(stale))


def _is(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
