"""Runs tasks of many types: one Session to the coordinator, executors found by entry point.

No executor's logic may enter; they live in their own packages.
"""
