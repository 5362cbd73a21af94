"""The floor every program stands on: clock, errors, settings, logs, lifecycle, retry, digests, artifacts, execution.

No Kubernetes, no gRPC, no web framework may enter; those have doors of their own above this floor.
"""
