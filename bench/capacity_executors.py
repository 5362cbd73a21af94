"""Three kinds of work for `bench.capacity`: it fills a core, it waits for others, it needs the one GPU."""

from __future__ import annotations

import asyncio
import hashlib

from espalier_kit.execution import Context, Result, Task

WAIT_S = 0.05
ROUNDS = 40_000
"""Of a key derivation that leaves Python's lock alone: some 15 ms on one core."""

_gpu = asyncio.Lock()


async def cpu(task: Task, context: Context) -> Result:
    """Computes on one core, in a thread."""
    await asyncio.to_thread(hashlib.pbkdf2_hmac, "sha256", task.key.encode(), b"salt", ROUNDS)
    return Result({})


async def io(task: Task, context: Context) -> Result:
    """Waits, as for a model server's answer."""
    await asyncio.sleep(WAIT_S)
    return Result({})


async def gpu(task: Task, context: Context) -> Result:
    """Waits for the device, which takes one at a time."""
    async with _gpu:
        await asyncio.sleep(WAIT_S)
    return Result({})
