"""Celery: acknowledged after the task, results in Redis. `python celery_app.py produce N`."""

import os
import sys

from celery import Celery
from common import PAYLOAD, finish, wait_for_keys

URL = os.environ["PEER_URL"]
app = Celery("peer", broker=URL, backend=URL)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=64,
    result_expires=3600,
    task_send_sent_event=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="nothing")
def nothing(text):
    return {"ok": True}


if __name__ == "__main__":
    count = int(sys.argv[2])
    with finish(count), app.pool.acquire(block=True) as connection, app.amqp.Producer(connection) as producer:
        for _ in range(count):
            nothing.apply_async((PAYLOAD,), producer=producer)
        wait_for_keys(URL, "celery-task-meta-*", count)
