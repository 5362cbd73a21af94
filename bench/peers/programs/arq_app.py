"""arq: results in Redis. `python arq_app.py produce N`."""

import asyncio
import os
import sys

from arq import create_pool
from arq.connections import RedisSettings
from common import CHUNK, PAYLOAD, finish, wait_for_keys

URL = os.environ["PEER_URL"]
SETTINGS = RedisSettings.from_dsn(URL)
QUIET = {"version": 1}
"""For the worker's logging: its own default writes two lines a task."""


async def nothing(ctx, text):
    return {"ok": True}


class WorkerSettings:
    functions = (nothing,)
    redis_settings = SETTINGS
    max_jobs = 200
    poll_delay = 0.01
    keep_result = 3600
    handle_signals = True


async def produce(count):
    pool = await create_pool(SETTINGS)
    for start in range(0, count, CHUNK):
        await asyncio.gather(*(pool.enqueue_job("nothing", PAYLOAD) for _ in range(start, min(start + CHUNK, count))))
    await pool.aclose()


if __name__ == "__main__":
    with finish(int(sys.argv[2])):
        asyncio.run(produce(int(sys.argv[2])))
        wait_for_keys(URL, "arq:result:*", int(sys.argv[2]))
