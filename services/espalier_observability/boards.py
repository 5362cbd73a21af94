"""The dashboards. Every metric that stands here exists: a test asks a real Prometheus each of these questions."""

from __future__ import annotations

from espalier_observability.panels import Board, Panel, Query, Row

_ENDED = "sum by (type) (rate(espalier_worker_attempts_total{%s}[5m]))"
_FAILED = "sum by (type, outcome, reason) (rate(espalier_worker_attempts_total{outcome!=\"done\"%s}[5m]))"


def _quantile(share: float, histogram: str, by: str, where: str = "") -> Query:
    inner = f"sum by (le, {by}) (rate({histogram}_bucket{{{where}}}[5m]))"
    return Query(f"histogram_quantile({share}, {inner})", f"p{share * 100:g} {{{{{by}}}}}")


def _latency(title: str, histogram: str, by: str, description: str, where: str = "") -> Panel:
    queries = (_quantile(0.5, histogram, by, where), _quantile(0.95, histogram, by, where))
    return Panel(title, queries, description, "s")


def _tasks(types: str) -> tuple[Panel, ...]:
    """Throughput, latency and errors of the task types that match."""
    where = f'type=~"{types}"'
    return (
        Panel("Attempts a second", (Query(_ENDED % where, "{{type}}"),), "Attempts that ended, by task type.", "ops"),
        _latency("Attempt latency", "espalier_worker_attempt_seconds", "type", "From start to result.", where),
        Panel(
            "Failed attempts", (Query(_FAILED % f", {where}", "{{type}} {{outcome}} {{reason}}"),),
            "By whose fault: the input's, the evaluation's, or the platform's.", "ops", is_quiet=True,
        ),
    )  # fmt: skip


FLEET = Board("fleet", "Fleet and nodes", (
    Row("Nodes of our agent", (
        Panel("Healthy", (Query("espalier_node_healthy", "{{instance}}"),), "1 while the agent's own check passes."),
        Panel("Pods", (Query("espalier_node_pods", "{{instance}}"),), "Pods that each agent works on."),
        Panel(
            "Since the Lease was renewed",
            (Query("time() - espalier_node_lease_renewed_timestamp_seconds", "{{instance}}"),),
            "Above 20 s the operator takes the node for lost.", "s",
        ),
    )),
    Row("Containers", (
        Panel("Starts", (Query("sum by (outcome) (rate(espalier_node_container_starts_total[5m]))", "{{outcome}}"),),
              "Container runs started a second.", "ops"),
        _latency("Pod start", "espalier_node_pod_start_seconds", "job", "From seeing a pod to its container running."),
        Panel("Failed probes", (
            Query("sum by (instance) (rate(espalier_node_probe_failures_total[5m]))", "{{instance}}"),
        ),
              "Probes of containers that failed.", "ops", is_quiet=True),
    )),
))  # fmt: skip

OPERATOR = Board("operator", "Operator", (
    Row("Work", (
        Panel("Reconciles", (
            Query("sum by (kind, outcome) (rate(espalier_operator_reconciles_total[5m]))", "{{kind}} {{outcome}}"),
        ), "How often each kind is looked at, and how it ended.", "ops"),
        _latency("Reconcile time", "espalier_operator_reconcile_seconds", "kind", "One reconcile, API calls included."),
        Panel("Queue", (
            Query("sum(espalier_operator_queue_depth)", "keys"),
            Query("max(espalier_operator_queue_oldest_seconds)", "age of the oldest, s"),
        ), "Keys that wait; an age that only grows means that it is stuck."),
    )),
    Row("Surroundings", (
        Panel("API calls", (
            Query("sum by (verb, code) (rate(espalier_operator_api_calls_total[5m]))", "{{verb}} {{code}}"),
        ), "Calls to the API server; code 0: not reached.", "ops"),
        Panel("Leader", (Query("espalier_operator_leader", "{{instance}}"),), "1 for who holds the Lease."),
        Panel("Coordinator away", (Query("max(espalier_operator_coordinator_away_seconds)", "seconds"),),
              "Since the coordinator last answered; 0 while it does.", "s"),
    )),
))  # fmt: skip

COORDINATOR = Board("coordinator", "Coordinator and workers", (
    Row("Cluster health", (
        Panel("Workers", (Query("sum(espalier_coordinator_workers)"),), "Connected workers.", is_number=True),
        Panel("Load", (
            Query("sum(espalier_coordinator_running_tasks) / clamp_min(sum(espalier_coordinator_capacity), 1)"),
        ), "Running tasks as a share of what the workers can run at once.", "percentunit", is_number=True),
        Panel("Jobs", (Query("sum by (state) (espalier_coordinator_jobs)", "{{state}}"),), "Jobs by state."),
    )),
    Row("Worker status", (
        Panel("Sessions", (Query("sum(espalier_worker_connected)", "connected"),), "Workers with an open session."),
        Panel("At work", (
            Query("sum(espalier_worker_running)", "running"), Query("sum(espalier_worker_queued)", "fetched, waiting"),
            Query("sum(espalier_worker_unacked)", "result not acked"),
        ), "Attempts by where they stand in the workers."),
        Panel("Event loop lag", (Query("max by (instance) (espalier_worker_loop_lag_seconds)", "{{instance}}"),),
              "A worker that lags cannot send heartbeats.", "s"),
    )),
    Row("Job throughput", (
        Panel("Tasks that ended", (Query("sum by (state) (rate(espalier_coordinator_tasks_total[5m]))", "{{state}}"),),
              "By final state.", "ops"),
        Panel("Waiting tasks", (Query("sum by (type) (espalier_coordinator_ready_tasks)", "{{type}}"),),
              "Ready, without a worker."),
        Panel("Commits", (Query("sum(rate(espalier_coordinator_commits_total[5m]))", "transactions"),),
              "Durable writes a second; each carries many tasks under load.", "ops"),
        Panel("Commit latency", (
            _quantile(0.5, "espalier_coordinator_commit_seconds", "job"),
            _quantile(0.99, "espalier_coordinator_commit_seconds", "job"),
        ), "From a transaction's first write to its being on disk; nothing is acknowledged before.", "s"),
        Panel("Longest wait", (Query("max by (tags) (espalier_coordinator_oldest_ready_seconds)", "{{tags}}"),),
              "Of the tasks whose turn is next, by the tags they require; a line that only grows has no worker.", "s"),
    )),
    Row("Task latency and error rates", (
        _latency("Task latency", "espalier_worker_attempt_seconds", "type", "From start to result, by task type."),
        Panel("Error rate", (
            Query("sum(rate(espalier_worker_attempts_total{outcome!=\"done\"}[5m]))"
                  " / clamp_min(sum(rate(espalier_worker_attempts_total[5m])), 1e-9)", "share of attempts"),
        ), "Attempts that did not succeed.", "percentunit", is_quiet=True),
        Panel("Trouble", (
            Query("rate(espalier_coordinator_lost_leases_total[5m])", "workers vanished"),
            Query("rate(espalier_coordinator_retries_total[5m])", "retries"),
            Query("rate(espalier_coordinator_timeouts_total[5m])", "timeouts"),
            Query("rate(espalier_coordinator_fenced_total[5m])", "late results refused"),
        ), "What exactly-once had to deal with.", "ops"),
    )),
))  # fmt: skip

GRADING = Board("grading", "Grading", (Row("Stages", _tasks("grading[.].*")),))
BENCHMARK = Board("benchmark", "Benchmarks", (
    Row("Load and questions", _tasks("benchmark[.].*")),
    Row("Tasks of workflows", _tasks("benchmark|evaluation|analysis|multimodal")),
))  # fmt: skip

MODELS = Board("models", "Model servers", (
    Row("Requests", (
        Panel("Requests", (
            Query("sum by (model, outcome) (rate(espalier_mlx_requests_total[5m]))", "{{model}} {{outcome}}"),
        ), "By how they ended.", "reqps"),
        Panel("Tokens a second", (
            Query("sum by (model) (rate(espalier_mlx_generated_tokens_total[5m]))", "{{model}} generated"),
            Query("sum by (model) (rate(espalier_mlx_prompt_tokens_total[5m]))", "{{model}} prompt"),
        ), "Generated and read."),
        Panel("Prompt cache", (
            Query("sum by (model) (rate(espalier_mlx_cached_prompt_tokens_total[5m]))"
                  " / clamp_min(sum by (model) (rate(espalier_mlx_prompt_tokens_total[5m])), 1e-9)", "{{model}}"),
        ), "Share of prompt tokens that need not be evaluated again.", "percentunit"),
    )),
    Row("Latency", (
        _latency("Queue", "espalier_mlx_queue_seconds", "model", "Wait before the batch."),
        _latency("Prompt", "espalier_mlx_prompt_seconds", "model", "Prompt evaluation."),
        _latency("Generation", "espalier_mlx_generation_seconds", "model", "From the first to the last token."),
    )),
))  # fmt: skip

BOARDS = (FLEET, OPERATOR, COORDINATOR, GRADING, BENCHMARK, MODELS)
