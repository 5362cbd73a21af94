"""The task that takes no time, for a real worker."""

from espalier_kit.execution import Context, Result, Task


async def nothing(task: Task, context: Context) -> Result:
    """Answers at once."""
    return Result({"ok": True})
