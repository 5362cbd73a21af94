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
    Reason("Finished", "All tasks have ended and the report is written.", "Read it with `espalier report`."),
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
