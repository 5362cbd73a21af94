"""One request to a model server, timed: what a task of type `benchmark` does."""

import time

import httpx

from espalier_kit.execution import Context, PlatformFault, Result, Task


async def run(task: Task, context: Context) -> Result:
    body = {"model": task.payload["model"], "messages": [{"role": "user", "content": task.payload["prompt"]}]}
    started = time.monotonic()
    async with httpx.AsyncClient(base_url=task.payload["url"], timeout=60, trust_env=False) as http:
        answer = await http.post("/v1/chat/completions", json=body)
    if answer.is_error:
        raise PlatformFault(f"{task.payload['url']} answered {answer.status_code}", reason="TargetFailed")
    return Result({"text": answer.json()["choices"][0]["message"]["content"], "seconds": time.monotonic() - started})
