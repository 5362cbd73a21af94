"""dramatiq: acknowledged after the task, results in Redis. `python dramatiq_app.py produce N`."""

import os
import sys

import dramatiq
from common import PAYLOAD, finish, wait_for_keys
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

URL = os.environ["PEER_URL"]
broker = RedisBroker(url=URL)
broker.add_middleware(Results(backend=RedisBackend(url=URL), store_results=True, result_ttl=3_600_000))
dramatiq.set_broker(broker)


@dramatiq.actor(max_retries=3)
def nothing(text):
    return {"ok": True}


if __name__ == "__main__":
    count = int(sys.argv[2])
    with finish(count):
        for _ in range(count):
            nothing.send(PAYLOAD)
        wait_for_keys(URL, "?" * 32, count)  # a result's key is a digest
