"""What every `Cluster` does alike. Imported by the modules that bring the fixtures `subject` and `place`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from espalier_kit.errors import Conflict, NotFound, Permanent
from espalier_kube.cluster import CONFIG_MAP, LEASE, POD, SERVICE_ACCOUNT, Cluster, WatchEvent
from espalier_kube.lease import Durations, Election
from espalier_kube.objects import config_map, metadata, owner_reference, service_account, typed

DEADLINE_S = 30


def settings(place: str, name: str = "settings", **data: str) -> Any:
    return config_map(metadata(name, place, labels={"part": "test"}), data or {"a": "1"})


async def eventually(question: Any, what: str) -> None:
    for _ in range(DEADLINE_S * 10):
        if await question():
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"never: {what}")


async def test_create_returns_what_get_returns(subject: Cluster, place: str) -> None:
    made = await subject.create(settings(place))
    assert made["metadata"]["uid"]
    assert made["metadata"]["creationTimestamp"]
    assert await subject.get(CONFIG_MAP, "settings", place) == made


async def test_a_taken_name_is_a_conflict_that_says_so(subject: Cluster, place: str) -> None:
    await subject.create(settings(place))
    with pytest.raises(Conflict) as caught:
        await subject.create(settings(place))
    assert caught.value.reason == "AlreadyExists"


async def test_what_does_not_exist_is_not_found(subject: Cluster, place: str) -> None:
    with pytest.raises(NotFound):
        await subject.get(CONFIG_MAP, "absent", place)
    with pytest.raises(NotFound):
        await subject.patch(CONFIG_MAP, "absent", place, {"data": {"a": "1"}})


async def test_replace_refuses_a_stale_version(subject: Cluster, place: str) -> None:
    first = await subject.create(settings(place))
    await subject.replace({**first, "data": {"a": "2"}})
    with pytest.raises(Conflict):
        await subject.replace({**first, "data": {"a": "3"}})
    assert (await subject.get(CONFIG_MAP, "settings", place))["data"] == {"a": "2"}


async def test_apply_creates_changes_and_removes_what_is_no_longer_wished(subject: Cluster, place: str) -> None:
    first = await subject.apply(settings(place, a="1", b="1"))
    await subject.patch(CONFIG_MAP, "settings", place, {"metadata": {"annotations": {"else": "here"}}})
    second = await subject.apply(settings(place, a="2"))
    assert second["data"] == {"a": "2"}
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    assert second["metadata"]["annotations"] == {"else": "here"}


async def test_an_apply_that_changes_nothing_keeps_the_version(subject: Cluster, place: str) -> None:
    first = await subject.apply(settings(place))
    again = await subject.apply(settings(place))
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_an_apply_for_another_uid_is_refused(subject: Cluster, place: str) -> None:
    await subject.create(settings(place))
    other = settings(place)
    other["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000"
    with pytest.raises(Permanent):
        await subject.apply(other)


async def test_a_merge_patch_sets_and_null_removes(subject: Cluster, place: str) -> None:
    await subject.create(settings(place, a="1", b="1"))
    patched = await subject.patch(CONFIG_MAP, "settings", place, {"data": {"a": None, "c": "3"}})
    assert patched["data"] == {"b": "1", "c": "3"}


async def test_status_is_written_only_through_its_subresource(subject: Cluster, place: str) -> None:
    await subject.create(service_account(metadata("runner", place)))
    await subject.create(pod(place))
    await subject.patch(POD, "one", place, {"status": {"phase": "Failed"}})
    assert (await subject.get(POD, "one", place)).get("status", {}).get("phase") != "Failed"
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata("one", place), "status": {"message": "told"}}
    applied = await subject.apply(body, subresource="status")
    assert applied["status"]["message"] == "told"
    assert applied["spec"]["containers"][0]["image"] == "none"


async def test_a_status_of_what_does_not_exist_is_not_found(subject: Cluster, place: str) -> None:
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata("absent", place), "status": {"message": "x"}}
    with pytest.raises(NotFound):
        await subject.apply(body, subresource="status")


async def test_list_selects_by_label_and_field_and_names_kinds(subject: Cluster, place: str) -> None:
    await subject.create(settings(place, "one"))
    await subject.create(settings(place, "two"))
    await subject.create(config_map(metadata("three", place), {"a": "1"}))
    labelled = (await subject.list(CONFIG_MAP, place, labels="part=test")).items
    assert {i["metadata"]["name"] for i in labelled} == {"one", "two"}
    assert {(i["apiVersion"], i["kind"]) for i in labelled} == {("v1", "ConfigMap")}
    chosen = (await subject.list(CONFIG_MAP, place, labels="part in (test),part!=x", fields="metadata.name=two")).items
    assert [i["metadata"]["name"] for i in chosen] == ["two"]


async def test_delete_is_for_one_uid_and_gone_is_success(subject: Cluster, place: str) -> None:
    made = await subject.create(settings(place))
    with pytest.raises(Conflict):
        await subject.delete(CONFIG_MAP, "settings", place, uid="00000000-0000-0000-0000-000000000000")
    await subject.delete(CONFIG_MAP, "settings", place, uid=made["metadata"]["uid"])
    await subject.delete(CONFIG_MAP, "settings", place)
    with pytest.raises(NotFound):
        await subject.get(CONFIG_MAP, "settings", place)


async def test_a_finalizer_keeps_the_object_until_it_goes(subject: Cluster, place: str) -> None:
    obj = settings(place)
    obj["metadata"]["finalizers"] = ["espalier.dev/test"]
    await subject.create(obj)
    await subject.delete(CONFIG_MAP, "settings", place)
    assert "deletionTimestamp" in (await subject.get(CONFIG_MAP, "settings", place))["metadata"]
    await subject.patch(CONFIG_MAP, "settings", place, {"metadata": {"finalizers": None}})
    with pytest.raises(NotFound):
        await subject.get(CONFIG_MAP, "settings", place)


async def test_children_go_with_their_owner(subject: Cluster, place: str) -> None:
    owner = await subject.create(settings(place, "owner"))
    await subject.create(config_map(metadata("child", place, owner=owner), {"a": "1"}))
    child = await subject.get(CONFIG_MAP, "child", place)
    assert child["metadata"]["ownerReferences"] == [owner_reference(owner)]
    await subject.delete(CONFIG_MAP, "owner", place)

    async def is_gone() -> bool:
        return not (await subject.list(CONFIG_MAP, place, fields="metadata.name=child")).items

    await eventually(is_gone, "the child is collected")


async def test_a_watch_tells_what_follows_the_list(subject: Cluster, place: str) -> None:
    await subject.create(settings(place, "before"))
    position = (await subject.list(CONFIG_MAP, place, labels="part=test")).resource_version
    seen = asyncio.create_task(collect(subject, place, position, count=3))
    made = await subject.create(settings(place, "after"))
    await subject.replace({**made, "data": {"a": "2"}})
    await subject.create(config_map(metadata("unlabelled", place), {"a": "1"}))
    await subject.delete(CONFIG_MAP, "after", place)
    events = await asyncio.wait_for(seen, DEADLINE_S)
    assert [(e.type, e.object["metadata"]["name"]) for e in events] == [
        ("ADDED", "after"), ("MODIFIED", "after"), ("DELETED", "after")
    ]


async def test_a_watch_ends_when_its_time_is_over(subject: Cluster, place: str) -> None:
    position = (await subject.list(CONFIG_MAP, place)).resource_version
    async with asyncio.timeout(DEADLINE_S):
        events = [e async for e in subject.watch(CONFIG_MAP, place, resource_version=position, timeout_s=1)]
    assert {e.type for e in events} <= {"BOOKMARK", "ADDED"}


async def test_a_token_is_made_for_an_account(subject: Cluster, place: str) -> None:
    await subject.create(service_account(metadata("runner", place)))
    token, expires = await subject.create_token("runner", place, audience="espalier-coordinator", expiration_s=600)
    assert token
    assert expires.endswith("Z")
    with pytest.raises(NotFound):
        await subject.create_token("nobody", place, audience=None, expiration_s=600)
    assert (await subject.get(SERVICE_ACCOUNT, "runner", place))["automountServiceAccountToken"] is False


async def test_one_of_two_candidates_gets_the_lease_and_the_other_when_it_is_given_back(
    subject: Cluster, place: str
) -> None:
    stop = asyncio.Event()
    quick = Durations(lease_s=15, renew_s=10.0, retry_s=0.2)
    first, second = (
        Election(subject, name="leader", namespace=place, identity=name, durations=quick) for name in ("a_1", "b_1")
    )
    assert await first.acquire(stop)
    assert (first.held, first.took_over) == (True, False)
    waiting = asyncio.create_task(second.acquire(stop))
    await first.release()
    assert await asyncio.wait_for(waiting, DEADLINE_S)
    assert (first.held, second.held, second.took_over) == (False, True, True)
    assert (await subject.get(LEASE, "leader", place))["spec"]["leaseTransitions"] == 1


async def test_a_predecessor_that_is_surely_dead_is_superseded_at_once(subject: Cluster, place: str) -> None:
    stop = asyncio.Event()
    await Election(subject, name="leader", namespace=place, identity="pod-1_1").acquire(stop)
    heir = Election(
        subject, name="leader", namespace=place, identity="pod-1_2", supersedes=lambda h: h.startswith("pod-1_")
    )
    assert await asyncio.wait_for(heir.acquire(stop), DEADLINE_S)
    assert heir.previous_holder == "pod-1_1"


async def collect(subject: Cluster, place: str, position: str, *, count: int) -> list[WatchEvent]:
    """The first `count` labelled changes after `position`; bookmarks do not count."""
    found: list[WatchEvent] = []
    while len(found) < count:
        async for event in subject.watch(CONFIG_MAP, place, resource_version=position, labels="part=test", timeout_s=5):
            position = event.object["metadata"]["resourceVersion"]
            if event.type != "BOOKMARK":
                found.append(event)
            if len(found) == count:
                break
    return found


def pod(place: str) -> Any:
    """A pod that nothing schedules and *restricted* admits."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    spec = {
        "nodeSelector": {"no": "node"},
        "serviceAccountName": "runner",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "main", "image": "none", "securityContext": security}],
    }
    return typed(POD, metadata("one", place), spec=spec)
