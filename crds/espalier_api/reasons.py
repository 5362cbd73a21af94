"""Every CamelCase reason that a condition or an Event of ours may carry, with its sentence and its remedy.

The troubleshooting page is generated from this table; a reason that is not here cannot be written (`report` checks).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """`sentence` says what it means, `remedy` what a person does about it."""

    name: str
    sentence: str
    remedy: str


_TABLE = (
    Reason("Accepted", "The object is valid and its work was handed over.", "Nothing to do."),
    Reason(
        "Admitting",
        "The bundle is being checked with its own solution and blank template.",
        "Wait; it takes about as long as grading two submissions.",
    ),
    Reason(
        "BundleRejected",
        "The assignment bundle contradicts itself, or the submissions' archive does; the message lists every finding.",
        "Mend what the message names, push it again, apply a new GradingJob.",
    ),
    Reason(
        "SourceNotFound",
        "A source's bytes are not in the artifact store.",
        "Run `espalier push PATH` and use the address it prints.",
    ),
    Reason(
        "ModelServerNotFound",
        "The named ModelServer does not exist in this namespace.",
        "Create it, or correct models.*.modelServer.",
    ),
    Reason(
        "ModelNotFound",
        "The named ModelServer does not serve the model that the spec names.",
        "Apply a new GradingJob with one of the models that the message lists.",
    ),
    Reason(
        "SecretNotFound",
        "A Secret that the spec names does not exist or lacks the key.",
        "Create the Secret; the job goes on by itself.",
    ),
    Reason(
        "SandboxUnavailable",
        "No node can run submissions or answers in the sandbox that execution.sandbox names, or no node is there to "
        "choose one; nothing weaker is taken instead.",
        "Do what the message names: a Linux node with a container runtime, and for gvisor a RuntimeClass gvisor that "
        "fits one; or apply a new job with another sandbox. The job goes on by itself.",
    ),
    Reason("Running", "Tasks are running.", "Nothing to do."),
    Reason(
        "Starting",
        "Workers or model servers are starting.",
        "`kubectl get pods` shows which; a pod that stays Pending says why in its Events.",
    ),
    Reason(
        "WaitingForNodes",
        "Another job holds the Macs that this job's model servers need.",
        "Wait, or free a Mac; the message names the holder and what is missing.",
    ),
    Reason(
        "UnknownPool",
        "The job asks for a shared worker pool that the platform does not have.",
        "Apply the job again with one of the pools that the message lists, or without workers.pool; an administrator "
        "adds a pool by chart value pools, and then the job goes on by itself.",
    ),
    Reason("SuspendedByUser", "runPolicy.suspend is true.", "Set runPolicy.suspend to false to go on."),
    Reason("NotSuspended", "The job is not suspended.", "Nothing to do."),
    Reason("CancelledByUser", "runPolicy.cancel is true: what was done is kept.", "Apply a new object to start again."),
    Reason(
        "Finished",
        "All tasks have ended and the report is written.",
        "Read it with `espalier report` or `espalier benchmark report`.",
    ),
    Reason(
        "PlatformFault",
        "Something of the platform failed more often than retries allow; it is not a grade.",
        "Mend the cause in the message, then apply the job again.",
    ),
    Reason(
        "ReportFailed",
        "The class report could not be written.",
        "See the message; verdicts and scores are kept in the coordinator.",
    ),
    Reason(
        "CoordinatorUnavailable",
        "The coordinator cannot be reached; work goes on where it runs and nothing is lost.",
        "`kubectl -n espalier-system get pods`; the operator keeps trying.",
    ),
    Reason(
        "ModelServerFailover",
        "A judge's call was answered by another server than its own; those submissions await review.",
        "Review them; find why the server was away in its Events.",
    ),
    Reason(
        "ModelServerDown",
        "A model endpoint of this job does not answer.",
        "See the ModelServer's conditions; the job goes on with the other one.",
    ),
    Reason(
        "EndpointUnavailable",
        "A judge's endpoint outside the platform cannot be asked; no submission is tried before it can.",
        "Do what the message says: start the server, load the model, correct the Secret of its key, or apply a new "
        "GradingJob with another endpoint. The job goes on by itself.",
    ),
    Reason(
        "PlainTextParse",
        "A model's answer was no valid JSON and was read as plain text; those submissions await review.",
        "Review them; check the model's structured output.",
    ),
    Reason("NoDegradation", "Everything runs as specified.", "Nothing to do."),
    Reason(
        "SlowModel",
        "A judge makes fewer tokens a second than performance.targets.",
        "Look at the node's power mode, other load, and the model's size.",
    ),
    Reason("SpeedAsExpected", "The judges reach performance.targets.", "Nothing to do."),
    Reason(
        "WorkerLost",
        "A worker process died; its tasks were given to another.",
        "Nothing to do; repeated losses show in the pod's last state.",
    ),
    Reason(
        "WorkerMissing",
        "No worker is connected although tasks wait.",
        "`kubectl get pods -l espalier.dev/owner-name=NAME`.",
    ),
    Reason(
        "CoordinatorRestarted",
        "The coordinator started again and reloaded its open tasks.",
        "Nothing to do; look at its last state if it repeats.",
    ),
    Reason(
        "OperatorRestarted",
        "A new operator process took over.",
        "Nothing to do; look at the pod's last state if it repeats.",
    ),
    Reason(
        "AgentRestarted",
        "The node's agent started again and adopted its running processes.",
        "Nothing to do; look at the agent's log if it repeats.",
    ),
    Reason("Serving", "Every wished replica answers and makes tokens.", "Nothing to do."),
    Reason("NoReplicas", "spec.replicas is 0.", "Scale it up."),
    Reason(
        "EndpointNotReady",
        "Fewer endpoints are ready than wished; the message names them.",
        "`kubectl describe pod`; an endpoint that failed two probes is withdrawn until it answers.",
    ),
    Reason("EndpointReady", "An endpoint answers again.", "Nothing to do."),
    Reason(
        "DeadlineExceeded",
        "The job was not done runPolicy.activeDeadlineSeconds after its start; what was done is kept.",
        "Give it longer, more workers or less to do, and apply a new object.",
    ),
    Reason(
        "UnknownPack",
        "A BenchmarkJob names an accuracy pack that does not exist or that needs a file.",
        "Correct accuracy.packs or dataset.pack; the message lists the packs.",
    ),
    Reason(
        "TargetUnreachable",
        "A target did not answer the benchmark's first request.",
        "See the message; check the endpoint's url, model, key and certificate, and apply a new BenchmarkJob.",
    ),
    Reason(
        "NoLogProbabilities",
        "Perplexity was asked of a server that returns no log-probabilities.",
        "Remove evaluator perplexity, or measure a server that returns them.",
    ),
    Reason(
        "BadDataset",
        "A dataset, a trace or a file of questions or texts cannot be read; the message names the line.",
        "Mend the file, push it again, apply a new BenchmarkJob.",
    ),
    Reason(
        "BadTrace",
        "A trace of arrivals cannot be read; the message names the line.",
        "Mend the file or correct load.trace.format, push it again, apply a new BenchmarkJob.",
    ),
    Reason(
        "ScheduleTooLong",
        "The load is more requests than a generator can hold.",
        "Shorten the run or lower its rate, and apply a new BenchmarkJob.",
    ),
    Reason(
        "NotPairable",
        "Two targets cannot be run in turns under this load.",
        "Correct load as the message says, and apply a new BenchmarkJob.",
    ),
    Reason(
        "BadPack",
        "A pack's questions cannot be asked one by one.",
        "Choose another pack or task, and apply a new BenchmarkJob.",
    ),
    Reason(
        "PackNotInstalled",
        "The workers lack what a pack is made from; the message names it.",
        "Install it into the worker's image, or choose another pack.",
    ),
    Reason(
        "PackChanged",
        "A pack's questions are not those that this version was made for.",
        "Install the version that the message names.",
    ),
    Reason(
        "Refused",
        "A target refuses the benchmark's requests; the message is its own.",
        "Correct the model's name, the key or the limits that it names, and apply a new BenchmarkJob.",
    ),
    Reason(
        "ImpossibleObjective",
        "The slo cannot be kept by any server.",
        "Correct slo as the message says and apply a new BenchmarkJob.",
    ),
    Reason(
        "BadLoad",
        "The load cannot be followed as it is written.",
        "Correct load as the message says and apply a new BenchmarkJob.",
    ),
    Reason(
        "BadTargets",
        "Names of targets contradict each other.",
        "Give each target a name of its own, name one of them in gate, and apply a new BenchmarkJob.",
    ),
    Reason(
        "NothingMeasured",
        "Not one request of a benchmark was answered.",
        "See status.targets[].errors and the target's own log.",
    ),
    Reason(
        "InvalidRun",
        "A run's figures are the generators' own, or clocks disagree; the message says which.",
        "Add generators, give them a quieter node, or lower the load; then apply a new BenchmarkJob.",
    ),
    Reason(
        "LimitReached",
        "The job stopped asking at one of its limits; its figures are of what was asked until then.",
        "Raise limits if more is wanted.",
    ),
    Reason("GatePassed", "Every limit of the gate is kept.", "Nothing to do."),
    Reason("GateFailed", "A limit of the gate is broken; the message says which.", "Look at the report."),
    Reason(
        "GateInconclusive",
        "The run cannot decide a limit of the gate: too few samples, nothing measured, or no valid run.",
        "Ask more requests, or mend what made the run invalid.",
    ),
    Reason(
        "TaskFailed",
        "A task of a workflow failed; the message names it.",
        "See status.results, mend the cause, retry its failed tasks or apply a new BenchmarkJob.",
    ),
    Reason(
        "UnknownTemplate",
        "templateRef names a job template that the coordinator does not have.",
        "Put the template, or correct the name; the job goes on by itself.",
    ),
    Reason(
        "UnknownParameter", "templateRef sets a parameter that the template does not have.",
        "Remove it, and apply a new BenchmarkJob.",
    ),
    Reason(
        "MissingParameter", "templateRef leaves out a parameter that the template needs.",
        "Set it, and apply a new BenchmarkJob.",
    ),
    Reason(
        "InvalidParameter", "A parameter's value does not fit where the template puts it.",
        "Correct it as the message says, and apply a new BenchmarkJob.",
    ),
    Reason(
        "DependencyCycle", "Tasks wait for each other in a circle.",
        "Remove a dependency of the circle in the message, and apply a new BenchmarkJob.",
    ),
    Reason(
        "UnknownDependency", "A task depends on one that the job does not have.",
        "Correct tasks[].dependsOn, and apply a new BenchmarkJob.",
    ),
    Reason(
        "PayloadTooLarge", "A task's payload is over the coordinator's limit.",
        "`espalier push` the bytes and pass their address in the payload.",
    ),
    Reason("InvalidTask", "The coordinator refuses a task as it is written.", "Correct what the message names."),
    Reason("InvalidJob", "The coordinator refuses the job as it is written.", "Correct what the message names."),
    Reason(
        "WaitingForRuns", "A BenchmarkJob that the comparison names has not ended.", "Wait; the message names it.",
    ),
    Reason(
        "RunNotFound",
        "A BenchmarkJob that the comparison names does not exist in this namespace.",
        "Apply it; the comparison goes on by itself.",
    ),
    Reason(
        "RunFailed",
        "A BenchmarkJob that the comparison names ended without a report.",
        "See its conditions; apply a new BenchmarkJob and a new comparison.",
    ),
    Reason(
        "TargetNotFound",
        "A comparison does not say which target is meant, or names one that is not there.",
        "Apply a new BenchmarkComparison with one of the targets that the message lists.",
    ),
    Reason(
        "NotPaired",
        "The two runs were not asked the same items.",
        "Give both BenchmarkJobs the same load, dataset and seed, or measure both targets in one.",
    ),
    Reason(
        "NothingPaired",
        "The two runs have nothing in common that can be compared.",
        "Ask both the same load or packs; where you did, see the runs' errors.",
    ),
    Reason("UnknownMetric", "A metric to be compared was not measured.", "Correct metrics as the message says."),
    Reason("BadComparison", "The comparison's numbers cannot be followed.", "Correct margin, alpha or power."),
    Reason("Improved", "The candidate is better in every metric that differs, and worse in none.", "Nothing to do."),
    Reason("Passed", "The candidate is as good as the baseline within the margin.", "Nothing to do."),
    Reason("Regressed", "The candidate is worse by more than the margin allows.", "Look at the report."),
    Reason(
        "Inconclusive",
        "The measurements allow both better and worse than asked for.",
        "Ask more requests or blocks; status.differences has the smallest effect that these would find.",
    ),
    Reason("ChildCreated", "A child object was created.", "Nothing to do."),
    Reason("ChildDeleted", "A child object that lived for the job was deleted.", "Nothing to do."),
    Reason(
        "NameTaken",
        "A child cannot be created: an object of that name belongs to somebody else.",
        "Rename or delete it; the job goes on by itself.",
    ),
    Reason(
        "ChildRefused",
        "The API server refuses a child object; the message is its own.",
        "Correct the field that the message names (workers.pod, models.*.template.pod), or the quota.",
    ),
    Reason("CertificateApproved", "A node's serving certificate was approved.", "Nothing to do."),
    Reason(
        "CertificateDenied",
        "A node asked for a serving certificate outside the administrator's addresses.",
        "Correct chart value nodes.addresses, or find out who asked.",
    ),
)

REASONS: dict[str, Reason] = {reason.name: reason for reason in _TABLE}
