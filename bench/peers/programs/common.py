"""What the peers' programs share: the payload, the clock, and when all results are there."""

import json
import time
from contextlib import contextmanager

PAYLOAD = "x" * 180
CHUNK = 200
LOOK_S = 0.005
TIMEOUT_S = 300


@contextmanager
def finish(count):
    """Print the seconds from the first submission to the last result."""
    began = time.monotonic()
    yield
    print(json.dumps({"seconds": time.monotonic() - began, "tasks": count}), flush=True)


def wait_for_keys(url, pattern, count):
    """Until so many results are in Redis. The number of all keys is cheap to ask for, the pattern is then counted."""
    import redis

    client = redis.Redis.from_url(url)
    end = time.monotonic() + TIMEOUT_S
    while client.dbsize() < count:
        if time.monotonic() > end:
            raise TimeoutError(f"{client.dbsize()} keys of {count} after {TIMEOUT_S} s")
        time.sleep(LOOK_S)
    while sum(1 for _ in client.scan_iter(match=pattern, count=10_000)) < count:
        if time.monotonic() > end:
            raise TimeoutError(f"fewer than {count} results after {TIMEOUT_S} s")
        time.sleep(LOOK_S)

