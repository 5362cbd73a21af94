"""Every published number, re-runnable: one module per scenario, each with a `SCENARIO`; `python -m bench list`."""
