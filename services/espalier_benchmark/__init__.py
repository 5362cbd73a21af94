"""Benchmark: honest load, two clocks, tails with their bounds, paired comparison; from schedule to report.

No Kubernetes, no gRPC may enter; model servers are reached over HTTP by the endpoints that the caller gives.
"""
