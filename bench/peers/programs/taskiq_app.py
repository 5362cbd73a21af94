"""taskiq on Redis streams: acknowledged when executed, results in Redis. `python taskiq_app.py produce N`."""

import asyncio
import os
import sys

from common import CHUNK, PAYLOAD, finish, wait_for_keys
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

URL = os.environ["PEER_URL"]
results = RedisAsyncResultBackend(redis_url=URL, result_ex_time=3600, prefix_str="result")
broker = RedisStreamBroker(url=URL).with_result_backend(results)


@broker.task(task_name="nothing")
async def nothing(text: str) -> dict:
    return {"ok": True}


async def produce(count):
    await broker.startup()
    for start in range(0, count, CHUNK):
        await asyncio.gather(*(nothing.kiq(PAYLOAD) for _ in range(start, min(start + CHUNK, count))))
    await broker.shutdown()


if __name__ == "__main__":
    with finish(int(sys.argv[2])):
        asyncio.run(produce(int(sys.argv[2])))
        wait_for_keys(URL, "result*", int(sys.argv[2]))
