"""Two jobs that only fitting workers run: one requires the tag `gpu`, one `cpu`.

python tagged_jobs.py http://localhost:8081 espalier-data/submitter.token http://localhost:8100 qwen
"""

import json
import sys
from pathlib import Path

import httpx

coordinator, key_file, target, model = sys.argv[1:5]
headers = {"authorization": f"Bearer {Path(key_file).read_text().strip()}"}

with httpx.Client(base_url=coordinator, headers=headers, timeout=60, trust_env=False) as http:
    for tag in ("gpu", "cpu"):
        payload = {"url": target, "model": model, "prompt": f"What is a {tag}?"}
        tasks = [{"key": str(n), "type": "benchmark", "payload": payload, "tags": [tag]} for n in range(4)]
        job = http.post("/v1/jobs", json={"name": f"needs-{tag}", "tasks": tasks}).raise_for_status().json()
        with http.stream("GET", f"/v1/jobs/{job['uid']}:watch") as views:
            *_, last = map(json.loads, views.iter_lines())
        told = http.get(f"/v1/jobs/{job['uid']}/tasks").raise_for_status().json()["tasks"]
        print(f"{last['name']}: {last['state']}, run by {', '.join(sorted({task['worker'] for task in told}))}")
