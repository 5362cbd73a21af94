"""JetStream: a work queue and a stream of results, both files; a task is acked after its result is stored.

`python jetstream_app.py setup | work | purge | produce N`.
"""

import asyncio
import os
import sys
import time

import nats
from common import CHUNK, LOOK_S, PAYLOAD, TIMEOUT_S, finish
from nats.js.api import ConsumerConfig, RetentionPolicy, StorageType, StreamConfig

URL = os.environ["PEER_URL"]
FETCH = 200


async def setup():
    client = await nats.connect(URL)
    stream = client.jetstream()
    await stream.add_stream(StreamConfig(
        name="TASKS", subjects=["tasks"], retention=RetentionPolicy.WORK_QUEUE, storage=StorageType.FILE
    ))
    await stream.add_stream(StreamConfig(name="RESULTS", subjects=["results"], storage=StorageType.FILE))
    await stream.add_consumer("TASKS", ConsumerConfig(durable_name="workers", max_ack_pending=10_000))
    await client.close()


async def purge():
    client = await nats.connect(URL)
    await client.jetstream().purge_stream("RESULTS")
    await client.close()


async def work():
    client = await nats.connect(URL)
    stream = client.jetstream(publish_async_max_pending=10_000)
    tasks = await stream.pull_subscribe("tasks", "workers", stream="TASKS")
    while True:
        try:
            found = await tasks.fetch(FETCH, timeout=1)
        except (TimeoutError, nats.errors.TimeoutError):
            continue
        stored = [await stream.publish_async("results", b'{"ok":true}') for _ in found]
        await asyncio.gather(*stored)
        await asyncio.gather(*(message.ack() for message in found))


async def produce(count):
    client = await nats.connect(URL)
    stream = client.jetstream(publish_async_max_pending=10_000)
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        await asyncio.gather(*[await stream.publish_async("tasks", PAYLOAD.encode()) for _ in range(size)])
    end = time.monotonic() + TIMEOUT_S
    while await messages(stream, "RESULTS") < count or await messages(stream, "TASKS"):
        if time.monotonic() > end:
            raise TimeoutError(f"not {count} results after {TIMEOUT_S} s")
        await asyncio.sleep(LOOK_S)
    await client.close()


async def messages(stream, name):
    return (await stream.stream_info(name)).state.messages


if __name__ == "__main__":
    match sys.argv[1]:
        case "setup":
            asyncio.run(setup())
        case "purge":
            asyncio.run(purge())
        case "work":
            asyncio.run(work())
        case "produce":
            with finish(int(sys.argv[2])):
                asyncio.run(produce(int(sys.argv[2])))
