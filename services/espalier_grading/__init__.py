"""Grading: one module per stage, from bundle to report; code computes every point.

No Kubernetes, no gRPC; models are reached over HTTP by the endpoints a task's context gives.
"""
