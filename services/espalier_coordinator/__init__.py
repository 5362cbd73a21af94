"""Durable tasks: graph, leases, results that count once; gRPC Session and unary calls, artifacts over HTTP.

The engine is the only owner of mutable state; no CR and no Kubernetes object (but TokenReview) may enter.
"""
