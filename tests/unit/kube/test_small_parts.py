"""Selectors, merges, builders, certificate requests."""

from __future__ import annotations

from typing import Any

import pytest

from espalier_kit.certificates import issue, make_authority
from espalier_kit.clock import ManualClock
from espalier_kit.errors import Forbidden, Retryable
from espalier_kube import signing
from espalier_kube.cluster import CSR
from espalier_kube.fake import FakeCluster
from espalier_kube.merging import apply_merge, merge_patch
from espalier_kube.objects import (
    config_map_bytes,
    encode,
    has_condition,
    label_value,
    parse_time,
    secret,
    secret_bytes,
    timestamp,
)
from espalier_kube.selectors import matches_fields, matches_labels

LABELS = {"app": "x", "tier": "web"}
SELECTORS = {
    None: True, "": True, "app": True, "!app": False, "app=x": True, "app==x": True, "app!=x": False,
    "app=x,tier=db": False, "app in (x,y)": True, "app notin (x)": False, "app in (x),tier in (web,db)": True,
    "other!=x": True, "!other": True,
}


@pytest.mark.parametrize("selector", SELECTORS)
def test_label_selectors(selector: str | None) -> None:
    assert matches_labels(selector, LABELS) is SELECTORS[selector]


@pytest.mark.parametrize(
    ("selector", "matches"),
    [("metadata.name=a", True), ("metadata.name!=a", False), ("spec.nodeName=", True), ("spec.nodeName=n", False)],
)
def test_field_selectors(selector: str, matches: bool) -> None:
    assert matches_fields(selector, {"metadata": {"name": "a"}, "spec": {}}) is matches


def test_merge_patches_follow_rfc_7396() -> None:
    target: dict[str, Any] = {"a": {"b": 1, "c": 2}, "d": [1, 2]}
    assert merge_patch(target, {"a": {"b": None}, "d": [3], "e": {"f": None, "g": 1}}) == {
        "a": {"c": 2}, "d": [3], "e": {"g": 1}
    }


def test_apply_merges_conditions_by_type_and_leaves_those_of_others() -> None:
    live = {"conditions": [{"type": "Theirs", "status": "True"}, {"type": "Ours", "status": "False", "reason": "old"}]}
    wished = {"conditions": [{"type": "Ours", "status": "True"}]}
    gone = {"type": "Gone", "status": "True"}
    previous = {"conditions": [{"type": "Ours", "status": "False", "reason": "old"}, gone]}
    assert apply_merge(live, previous=previous, wished=wished) == {
        "conditions": [{"type": "Theirs", "status": "True"}, {"type": "Ours", "status": "True"}]
    }


def test_names_become_label_values() -> None:
    assert label_value("short") == "short"
    long = label_value("a" * 62 + ".b")
    assert (len(long), long[-1]) == (62, "a")


def test_times_and_bytes_read_as_written() -> None:
    now = ManualClock().now()
    assert parse_time(timestamp(now)) == now
    assert parse_time(None) is None
    assert secret_bytes(secret({"name": "s"}, {"k": b"\x00v"}), "k") == b"\x00v"
    assert secret_bytes({"data": {}}, "k") is None
    assert config_map_bytes({"binaryData": {"k": encode(b"b")}, "data": {"t": "ü"}}, "k") == b"b"
    assert config_map_bytes({"data": {"t": "ü"}}, "t") == "ü".encode()
    assert config_map_bytes({}, "t") is None


async def test_a_certificate_is_asked_for_and_waited_for() -> None:
    clock = ManualClock()
    cluster, authority = FakeCluster(clock=clock), make_authority("test", clock.now())
    subject = signing.Subject("system:node:a", ("system:nodes",), ("a", "127.0.0.9"))
    pem, _ = signing.make_request(subject)
    made = await cluster.create(signing.request_object("r", pem, signer=signing.SERVING_SIGNER, usages=["server auth"]))
    assert signing.parse(made).is_signature_valid
    approved = signing.decided(made, approve=True, reason="CertificateApproved", message="", now=clock.now())
    stored = await cluster.replace(approved, subresource="approval")
    assert signing.is_decided(stored)
    signed = issue(authority, "system:node:a", clock.now(), is_server=True).certificate
    status = {**stored["status"], "certificate": encode(signed)}
    await cluster.patch(CSR, "r", None, {"status": status}, subresource="status")
    assert await signing.wait_for_certificate(cluster, "r", timeout_s=1, clock=clock) == signed


async def test_a_denied_certificate_carries_the_reason() -> None:
    clock = ManualClock()
    cluster = FakeCluster(clock=clock)
    pem, _ = signing.make_request(signing.Subject("a"))
    made = await cluster.create(signing.request_object("r", pem, signer=signing.SERVING_SIGNER, usages=[]))
    denied = signing.decided(made, approve=False, reason="CertificateDenied", message="not here", now=clock.now())
    await cluster.replace(denied, subresource="approval")
    with pytest.raises(Forbidden, match="not here"):
        await signing.wait_for_certificate(cluster, "r", timeout_s=1, clock=clock)


async def test_a_request_that_vanished_may_be_made_again() -> None:
    with pytest.raises(Retryable, match="vanished"):
        await signing.wait_for_certificate(FakeCluster(), "r", timeout_s=1, clock=ManualClock())


def test_conditions_are_true_only_when_they_say_so() -> None:
    obj = {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
    assert not has_condition(obj, "Ready")
    assert not has_condition({}, "Ready")
