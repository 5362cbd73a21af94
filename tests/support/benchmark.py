"""Values of benchmark tasks, as an executor would return them."""

from __future__ import annotations

from typing import Any

ENDPOINT = {"endpoint": {"url": "http://127.0.0.1:9", "model": "m"}}
LATENCY = {
    "name": "ttft", "clock": "response", "samples": 90, "mean": 52.0,
    "percentiles": [{"name": "p50", "value": 50.0, "low": 45.0, "high": 56.0}, {"name": "p99"}],
}
REPORT: dict[str, Any] = {
    "index": "d" * 64, "files": [{"name": "report.html", "uri": f"artifact://{'e' * 64}"}],
    "targets": [{
        "name": "target-0", "requests": 100, "succeeded": 99, "latencies": [LATENCY], "outputTokensPerSecond": 81.239,
        "goodputPerSecond": 1.9, "requestsPerSecond": 2.0, "errors": [{"type": "timeout", "count": 1}],
    }],
    "validity": {"verdict": "Valid"},
}
INVALID = {"verdict": "Invalid", "reasons": [{"reason": "ClientOverloaded", "message": "generator 0 was late"}]}
