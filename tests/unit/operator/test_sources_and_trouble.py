"""Sources, references and refused children: what a person is told when something is missing."""

from __future__ import annotations

from espalier_kit.digest import sha256
from espalier_kit.errors import Forbidden, Permanent
from espalier_kube.cluster import GRADING_JOB, JOB, MODEL_SERVER, SECRET, SERVICE_ACCOUNT
from espalier_kube.objects import config_map, metadata, secret, typed
from tests.support.operator_world import DIGEST, MODEL, NAMESPACE, World, conditions, grading_job

JUDGE = {"template": {"models": [MODEL]}}
IN_MAP = {"assignment": {"uri": "configmap://bundle/tar"}}


async def message(world: World, type_: str) -> str:
    found = next(c for c in (await world.job())["status"]["conditions"] if c["type"] == type_)
    return str(found["message"])


async def test_a_config_map_goes_to_the_artifact_store_before_the_work_is_handed_over() -> None:
    world = await World().begin()
    await world.cluster.create(config_map(metadata("bundle", NAMESPACE), {"tar": "bytes"}))
    made = await world.create(grading_job(**IN_MAP))
    assert world.store.stored == [b"bytes"]
    payload = world.coordinator.requests[made["metadata"]["uid"]].tasks[0].payload
    assert payload["assignment"] == sha256(b"bytes")


async def test_a_config_map_that_comes_later_is_found() -> None:
    world = await World().begin()
    await world.create(grading_job(**IN_MAP))
    assert conditions(await world.job())["Accepted"] == ("False", "SourceNotFound")
    assert "there is no ConfigMap bundle" in await message(world, "Accepted")
    assert await world.names(MODEL_SERVER) == []
    await world.cluster.create(config_map(metadata("bundle", NAMESPACE), {"tar": "bytes"}))
    await world.pass_time(16)
    assert (await world.job())["status"]["phase"] == "Admitting"


async def test_other_content_than_promised_is_refused() -> None:
    world = await World().begin()
    await world.create(grading_job(assignment={"uri": f"artifact://{DIGEST}", "sha256": "f" * 64}))
    assert conditions(await world.job())["Accepted"] == ("False", "SourceNotFound")
    assert f"has sha256 {DIGEST}" in await message(world, "Accepted")


async def test_a_missing_model_server_is_waited_for() -> None:
    world = await World().begin()
    await world.create(grading_job(models={"code": {"modelServer": "qwen"}, "feedback": JUDGE}))
    assert conditions(await world.job())["Progressing"] == ("False", "ModelServerNotFound")
    await world.create(typed(MODEL_SERVER, metadata("qwen", NAMESPACE), spec={"models": [MODEL]}))
    assert (await world.job())["status"]["phase"] == "Admitting"
    assert sorted(await world.names(MODEL_SERVER)) == ["qwen", "week-1-feedback"]


async def test_a_model_that_the_server_does_not_serve_is_refused_before_it_fails_over() -> None:
    world = await World().begin()
    await world.create(typed(MODEL_SERVER, metadata("qwen", NAMESPACE), spec={"models": [MODEL]}))
    await world.create(grading_job(models={"code": {"modelServer": "qwen", "model": "qwen3"}, "feedback": JUDGE}))
    assert conditions(await world.job())["Accepted"] == ("False", "ModelNotFound")
    assert "ModelServer qwen serves tiny, not qwen3" in await message(world, "Accepted")
    assert not world.coordinator.requests


async def test_an_endpoint_waits_for_its_secret_and_sends_its_key_along() -> None:
    world = await World(macs=0).begin()
    reference = {"name": "openai", "key": "token"}
    endpoint = {"url": "http://127.9.0.9:11434", "model": "llama", "apiKeySecretRef": reference}
    made = await world.create(grading_job(models={"code": {"endpoint": endpoint}, "feedback": {"endpoint": endpoint}}))
    assert conditions(await world.job())["Progressing"] == ("False", "SecretNotFound")
    await world.cluster.create(secret(metadata("openai", NAMESPACE), {"token": b"k\n"}))
    await world.pass_time(16)
    request = world.coordinator.requests[made["metadata"]["uid"]]
    assert [(e.role, e.url, e.api_key) for e in request.endpoints] == [
        ("code", endpoint["url"], "k"), ("feedback", endpoint["url"], "k")
    ]
    assert request.tasks[-1].payload["sharedHardware"] is False


async def test_what_a_judges_endpoint_lacks_stands_in_the_status_before_any_submission_is_tried() -> None:
    world = await World(macs=0).begin()
    endpoint = {"url": "http://127.9.0.9:11434", "model": "llama"}
    made = await world.create(grading_job(models={"code": {"endpoint": endpoint}, "feedback": {"endpoint": endpoint}}))
    uid = made["metadata"]["uid"]
    reach, admit = world.coordinator.requests[uid].tasks
    assert (reach.type, reach.payload, [d.key for d in admit.depends_on]) == (
        "grading.reach", {"judges": ["code", "feedback"]}, [reach.key]
    )
    said = "the code judge's endpoint does not answer: start it"
    world.coordinator.move(uid, message=said, workers=1)
    await world.settle()
    job = await world.job()
    assert (job["status"]["phase"], await message(world, "Progressing")) == ("Admitting", said)
    assert conditions(job)["Degraded"] == ("True", "EndpointUnavailable")
    assert len(await world.events("EndpointUnavailable")) == 1
    world.coordinator.move(uid, message="the solution ran", tallies={"reached": 1.0})
    await world.settle()
    assert conditions(await world.job())["Degraded"] == ("False", "NoDegradation")
    assert await message(world, "Progressing") == "the bundle is checked with its own solution"


async def test_a_child_of_somebody_else_is_not_taken_over() -> None:
    world = await World().begin()
    await world.create(typed(MODEL_SERVER, metadata("week-1-code", NAMESPACE), spec={"models": [MODEL], "replicas": 0}))
    await world.create(grading_job())
    assert conditions(await world.job())["Progressing"] == ("False", "NameTaken")
    server = await world.cluster.get(MODEL_SERVER, "week-1-code", NAMESPACE)
    assert server["spec"]["replicas"] == 0


async def test_secrets_and_accounts_of_somebody_else_are_not_taken_over() -> None:
    """cert-manager, for one, calls a Secret so."""
    theirs = {"tls.crt": b"their certificate", "tls.key": b"their key"}
    for kind, name, data in ((SECRET, "chat-tls", theirs), (SECRET, "talk-key", {"api-key": b"theirs"}),
                             (SERVICE_ACCOUNT, "code", {})):
        world = await World().begin()
        made = metadata(name, NAMESPACE)
        await world.create(secret(made, data) if kind is SECRET else typed(kind, made))
        before = await world.cluster.get(kind, name, NAMESPACE)
        server = metadata(name.partition("-")[0], NAMESPACE)
        await world.create(typed(MODEL_SERVER, server, spec={"models": [MODEL], "replicas": 1}))
        assert await world.cluster.get(kind, name, NAMESPACE) == before
        (event,) = await world.events("NameTaken")
        assert f"{kind.kind} {NAMESPACE}/{name} exists and belongs to somebody else" in event["message"]


async def test_what_a_former_object_of_that_name_left_is_waited_for() -> None:
    world = await World().begin()
    former = {"apiVersion": "espalier.dev/v1alpha1", "kind": "ModelServer", "name": "chat", "uid": "former"}
    left = secret({**metadata("chat-key", NAMESPACE), "ownerReferences": [former]}, {"api-key": b"former"})
    await world.create(left)
    await world.create(typed(MODEL_SERVER, metadata("chat", NAMESPACE), spec={"models": [MODEL], "replicas": 1}))
    assert await world.events("NameTaken") == []
    await world.cluster.delete(SECRET, "chat-key", NAMESPACE)
    await world.pass_time(60)
    new = await world.cluster.get(SECRET, "chat-key", NAMESPACE)
    assert [ref["name"] for ref in new["metadata"]["ownerReferences"]] == ["chat"]


async def test_a_refused_child_stands_in_the_status_with_the_servers_sentence() -> None:
    world = await World().begin()

    def refuse(verb: str, kind: str) -> Exception | None:
        is_job = (verb, kind) == ("apply", "Job")
        return Permanent("spec.template: bad toleration", reason="Invalid") if is_job else None

    world.cluster.faults = refuse
    await world.create(grading_job())
    assert conditions(await world.job())["Progressing"] == ("False", "ChildRefused")
    assert await message(world, "Progressing") == "spec.template: bad toleration"
    assert len(await world.events("ChildRefused")) == 1
    world.cluster.faults = None
    await world.pass_time(60)
    assert (await world.job())["status"]["phase"] == "Admitting"


async def test_a_namespace_that_is_being_deleted_gets_nothing_and_holds_nobody_up() -> None:
    world = await World().begin()
    sentence = "unable to create new content in namespace course because it is being terminated"

    def refuse(verb: str, kind: str) -> Exception | None:
        return Forbidden(sentence) if (verb, kind) == ("apply", "Job") else None

    world.cluster.faults = refuse
    await world.create(grading_job())
    assert world.errors == []
    assert "status" not in await world.job()
    assert tuple(world.observer._contenders("another job's uid")) == ()
    world.cluster.faults = None
    await world.pass_time(15)
    assert (await world.job())["status"]["phase"] == "Admitting"


async def test_workers_that_refuse_their_settings_fail_the_job() -> None:
    world = await World().begin()
    made = await world.create(grading_job())
    failed = {"conditions": [{"type": "Failed", "status": "True", "message": "exit code 78"}]}
    await world.cluster.patch(JOB, "week-1-worker", NAMESPACE, {"status": failed}, subresource="status")
    await world.settle()
    assert world.view(made["metadata"]["uid"]).state == "cancelling"
    world.coordinator.move(made["metadata"]["uid"], state="cancelled")
    await world.settle()
    assert conditions(await world.job())["Failed"] == ("True", "PlatformFault")
    assert "exit code 78" in await message(world, "Failed")


async def test_progress_is_written_at_most_every_five_seconds_and_conditions_at_once() -> None:
    world = await World().begin()
    made = await world.create(grading_job())
    uid = made["metadata"]["uid"]
    world.coordinator.move(uid, tallies={"submissions": 9.0}, workers=1)
    await world.settle()
    for graded in range(1, 5):
        world.coordinator.move(uid, tallies={"submissions": 9.0, "graded": float(graded), "points": 9.0})
        await world.settle()
    assert (await world.job())["status"]["submissions"]["graded"] == 0
    await world.pass_time(5)
    assert (await world.job())["status"]["submissions"]["graded"] == 4
    world.coordinator.move(uid, tallies={"submissions": 9.0, "graded": 5.0, "failover": 1.0})
    await world.settle()
    assert (await world.job())["status"]["submissions"]["graded"] == 5


async def test_a_finished_job_is_deleted_after_its_time_to_live() -> None:
    world = await World().begin()
    made = await world.create(grading_job(runPolicy={"ttlSecondsAfterFinished": 60, "cancel": True}))
    assert (await world.job())["status"]["phase"] == "Cancelled"
    await world.pass_time(59)
    assert await world.names(GRADING_JOB) == ["week-1"]
    await world.pass_time(2)
    assert await world.names(GRADING_JOB) == []
    assert made["metadata"]["uid"] not in world.coordinator.requests
