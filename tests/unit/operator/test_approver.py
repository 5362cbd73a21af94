"""Which nodes' certificate requests are approved, and what the denied ones are told."""

from __future__ import annotations

from typing import Any

import pytest

from espalier_kube.cluster import CSR, Object
from espalier_kube.signing import SERVING_SIGNER, SERVING_USAGES, Subject, make_request, request_object
from espalier_operator.approver import decide, is_ours
from tests.support.operator_world import World, operator_settings

NETWORKS = operator_settings().node_addresses
ALICE = {"username": "alice", "groups": ["system:authenticated"]}


def request(
    hosts: tuple[str, ...] = ("mac-1", "127.9.2.1"), *, name: str = "system:node:mac-1",
    organisation: str = "system:nodes", usages: tuple[str, ...] = SERVING_USAGES, **spec: Any,
) -> Object:
    pem, _ = make_request(Subject(name, (organisation,), hosts))
    made = request_object("csr-1", pem, signer=SERVING_SIGNER, usages=usages)
    asker = {"username": "system:node:mac-1", "groups": ["system:nodes", "system:authenticated"]}
    return {**made, "spec": {**made["spec"], **asker, **spec}}


CASES: dict[str, tuple[Object, str]] = {
    "its name and address": (request(), ""),
    "with key encipherment": (request(usages=(*SERVING_USAGES, "key encipherment")), ""),
    "an address elsewhere": (request(("10.1.2.3",)), "10.1.2.3 is neither the node's name nor within"),
    "another node's name": (request(("mac-2",)), "mac-2 is neither"),
    "no host": (request(()), "it names no host"),
    "no node": (request(**ALICE), "alice is no node"),
    "without the group": (request(groups=[]), "is no node"),
    "for another node": (request(name="system:node:mac-2"), "the common name must be system:node:mac-1"),
    "another organisation": (request(organisation="system:masters"), "the organisation must be system:nodes"),
    "a client's usages": (request(usages=("digital signature", "client auth")), "usages must be"),
    "more usages": (request(usages=(*SERVING_USAGES, "client auth")), "usages must be"),
    "no request at all": (request(request="bm90aGluZw=="), "cannot be read"),
}


@pytest.mark.parametrize("case", CASES)
def test_decisions(case: str) -> None:
    csr, refusal = CASES[case]
    decision = decide(csr, NETWORKS)
    assert decision.approve is (refusal == "")
    assert refusal in decision.message


def test_requests_of_other_signers_and_decided_ones_are_left_alone() -> None:
    csr = request()
    assert is_ours(csr)
    assert not is_ours({**csr, "spec": {**csr["spec"], "signerName": "kubernetes.io/kube-apiserver-client"}})
    assert not is_ours({**csr, "metadata": {"name": "csr-of-a-kubelet"}})
    assert not is_ours({**csr, "status": {"conditions": [{"type": "Denied", "status": "True"}]}})


async def test_the_verdict_is_written_and_a_denial_is_told() -> None:
    world = await World().begin()
    await world.create(request())
    other = request(("10.1.2.3",))
    await world.create({**other, "metadata": {**other["metadata"], "name": "csr-2"}})
    verdicts = {
        name: (await world.cluster.get(CSR, name))["status"]["conditions"][0] for name in ("csr-1", "csr-2")
    }
    assert (verdicts["csr-1"]["type"], verdicts["csr-1"]["reason"]) == ("Approved", "CertificateApproved")
    assert (verdicts["csr-2"]["type"], verdicts["csr-2"]["reason"]) == ("Denied", "CertificateDenied")
    (event,) = await world.events("CertificateDenied")
    assert event["involvedObject"]["name"] == "csr-2"
