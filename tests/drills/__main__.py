"""`make drill`: every drill on a cluster of its own, with two Linux nodes and two Macs on cables.

Prints a table, writes docs/reference/drills.md when all drills ran and passed, takes the cluster down. Exit code 1 as
soon as a job does not end in time, loses a result or counts one twice.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
import traceback
from collections.abc import Sequence

from espalier_kube.client import connect
from espalier_local import bootstrap
from espalier_local.cluster import Cluster, down, up
from espalier_local.hosts import container_profiles
from espalier_local.places import Places, places_from
from espalier_local.progress import Terminal
from espalier_local.release import install
from tests.drills import page
from tests.drills.stories import DRILLS, WARM_UP, Drill, Outcome, run


def main() -> int:
    """Run the drills that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description=__doc__)
    parser.add_argument("drills", nargs="*", metavar="DRILL", help=f"of {', '.join(d.name for d in DRILLS)} (all)")
    parser.add_argument("--name", default="drill", help="of the cluster (default: %(default)s)")
    parser.add_argument("--students", type=int, default=8, help="submissions of each job (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up")
    options = parser.parse_args()
    if unknown := set(options.drills) - {drill.name for drill in DRILLS}:
        parser.error(f"no such drill: {', '.join(sorted(unknown))}")
    chosen = [drill for drill in DRILLS if drill.name in options.drills or not options.drills]
    places, progress = places_from(os.environ), Terminal()
    try:
        lab = up(options.name, places, progress, profiles=container_profiles(2), kind="container")
        install(lab, places, progress)
        passed = asyncio.run(_all((WARM_UP, *chosen), lab, places, options.students))
    finally:
        if not options.keep:
            down(options.name, places, progress)
    outcomes = [outcome for outcome in passed if outcome.drill is not WARM_UP]
    print("\n".join(page.table(outcomes)))
    if len(outcomes) == len(DRILLS):
        page.write(places.checkout / page.PAGE, outcomes)
    return 0 if len(passed) == len(chosen) + 1 else 1


async def _all(chosen: Sequence[Drill], lab: Cluster, places: Places, students: int) -> list[Outcome]:
    """The outcomes of those that passed; what failed is shown at once."""
    outcomes = []
    client = await connect(lab.kubeconfig)
    try:
        for drill in chosen:
            namespace = f"drill-{secrets.token_hex(3)}"
            metadata = {"name": namespace, "labels": bootstrap.RESTRICTED}
            await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
            print(f"drill {drill.name}: {drill.what}", flush=True)
            try:
                outcomes.append(await run(drill, lab, places, client, namespace, students=students))
            except AssertionError:
                traceback.print_exc()
                print(f"FAILED {drill.name}", flush=True)
            else:
                print(f"passed {drill.name}: {outcomes[-1].times}", flush=True)
    finally:
        await client.close()
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
