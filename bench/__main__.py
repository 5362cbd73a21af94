"""`python -m bench list | run NAME | performance`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from bench.pictures import svg
from bench.runner import Options, Result, Scenario, from_json, page, picture_file, scenarios, to_json

DOCS = Path(__file__).parent.parent / "docs"
RESULTS = DOCS / "performance"
PAGE = DOCS / "performance.md"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code; a scenario that fails raises."""
    known = scenarios()
    options = parser_of(list(known)).parse_args(arguments)
    if options.command == "list":
        for scenario in known.values():
            print(f"{scenario.name:16} {scenario.summary}")
    elif options.command == "run":
        result = _run(known[options.name], options)
        if options.json:
            options.json.write_text(to_json(result))
    else:
        _performance(known, options)
    return 0


def _run(scenario: Scenario, options: argparse.Namespace) -> Result:
    result = replace(scenario.run(Options(quick=options.quick, seed=options.seed)), is_quick=options.quick)
    for name, f in result.metrics.items():
        print(f"{scenario.name}: {name} {f.median:,.6g} {f.unit} ({f.min:,.6g} to {f.max:,.6g}, n={result.n})")
    for name, value in result.ratios.items():
        print(f"{scenario.name}: {name} {value:.3g}")
    return result


def _performance(known: dict[str, Scenario], options: argparse.Namespace) -> None:
    RESULTS.mkdir(exist_ok=True)
    if not options.page_only:
        for scenario in known.values():
            (RESULTS / f"{scenario.name}.json").write_text(to_json(_run(scenario, options)))
    results = [from_json(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    for result in results:
        for name, picture in result.pictures.items():
            (RESULTS / picture_file(result, name)).write_text(svg(picture))
    PAGE.write_text(page(results, {s.name: s.summary for s in known.values()}))
    print(f"wrote {PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}")


def parser_of(names: list[str]) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Every published number, re-runnable.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the scenarios")
    run = commands.add_parser("run", help="run one")
    run.add_argument("name", choices=names, help="which; `list` says what each measures")
    run.add_argument("--json", type=Path, metavar="FILE", help="write the result file")
    performance = commands.add_parser("performance", help="run all and write docs/performance.md")
    performance.add_argument("--page-only", action="store_true", help="write the page from the results that are there")
    for command in (run, performance):
        command.add_argument("--quick", action="store_true", help="the same shape with a smaller n")
        command.add_argument("--seed", type=int, default=1, help="of everything that is drawn at random; default: 1")
    return parser


if __name__ == "__main__":
    sys.exit(main())
