"""Submit 100 benchmark jobs and wait until all have ended.

python hundred_jobs.py http://localhost:8081 espalier-data/submitter.token http://localhost:8100 qwen
"""

import sys
import time
from pathlib import Path

import httpx

coordinator, key_file, target, model = sys.argv[1:5]
headers = {"authorization": f"Bearer {Path(key_file).read_text().strip()}"}

with httpx.Client(base_url=coordinator, headers=headers, timeout=30, trust_env=False) as http:
    for number in range(100):
        payload = {"url": target, "model": model, "prompt": f"Test prompt {number}"}
        task = {"key": "measure", "type": "benchmark", "payload": payload, "timeout_s": 600}
        http.post("/v1/jobs", json={"name": f"benchmark-{number}", "priority": 10, "tasks": [task]}).raise_for_status()

    while True:
        stats = http.get("/v1/stats").raise_for_status().json()
        print(f"{stats['completed_jobs']} of 100 completed, cluster load {stats['cluster_load']:.0%}", flush=True)
        if stats["pending_jobs"] == stats["running_jobs"] == 0:
            break
        time.sleep(1)

    jobs = http.get("/v1/jobs", params={"status_filter": "completed"}).raise_for_status().json()["jobs"]
    seconds = sorted(job["outcomes"][0]["value"]["seconds"] for job in jobs if job["name"].startswith("benchmark-"))
    print(f"All jobs completed: {len(seconds)}, median {seconds[len(seconds) // 2]:.3f} s")
