"""Environment, commands, images, addresses."""

from __future__ import annotations

import base64
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from espalier_kit.errors import Permanent, Retryable
from espalier_kube.cluster import Object
from espalier_node import addresses, environment, images, podspec
from espalier_node.environment import Situation, Sources, build, command, expand, quantity
from tests.support.node import container, pod, pod_object

SITUATION = Situation(pod_ip="127.77.1.10", host_ip="127.77.1.1", node_name="linux-1", allocatable={"cpu": "2"})
SOURCES = Sources(
    config_maps={"settings": {"data": {"colour": "green"}, "binaryData": {"raw": "eA=="}}, "gone": None},
    secrets={"key": {"data": {"password": base64.b64encode(b"s3cret").decode()}}},
)  # fmt: skip


def value_of(variable: Object, **fields: Any) -> str | None:
    made = container(env=[variable], **fields)
    spec = pod(made, metadata={"labels": {"app": "x"}}, serviceAccountName="builder")
    return build(spec, spec.main[0], base={"BASE": "1"}, sources=SOURCES, situation=SITUATION).get(variable["name"])


def reference(**origin: Any) -> Object:
    return {"name": "V", "valueFrom": origin}


VALUES: dict[str, tuple[Object, str | None]] = {
    "plain": ({"name": "V", "value": "a"}, "a"),
    "no value": ({"name": "V"}, ""),
    "expanded": ({"name": "V", "value": "$(BASE)/$(NO)/$$(BASE)"}, "1/$(NO)/$(BASE)"),
    "pod ip": (reference(fieldRef={"fieldPath": "status.podIP"}), "127.77.1.10"),
    "node": (reference(fieldRef={"fieldPath": "spec.nodeName"}), "linux-1"),
    "account": (reference(fieldRef={"fieldPath": "spec.serviceAccountName"}), "builder"),
    "label": (reference(fieldRef={"fieldPath": "metadata.labels['app']"}), "x"),
    "missing annotation": (reference(fieldRef={"fieldPath": "metadata.annotations['a']"}), ""),
    "config map": (reference(configMapKeyRef={"name": "settings", "key": "colour"}), "green"),
    "secret": (reference(secretKeyRef={"name": "key", "key": "password"}), "s3cret"),
    "optional object": (reference(configMapKeyRef={"name": "gone", "key": "x", "optional": True}), None),
    "optional key": (reference(secretKeyRef={"name": "key", "key": "x", "optional": True}), None),
    "node's cpu": (reference(resourceFieldRef={"resource": "limits.cpu"}), "2"),
}


@pytest.mark.parametrize("case", VALUES)
def test_values(case: str) -> None:
    variable, expected = VALUES[case]
    assert value_of(variable) == expected


def test_resources_are_divided_and_rounded_up() -> None:
    resources = {"limits": {"memory": "1500Mi", "cpu": "1500m"}}
    divided = reference(resourceFieldRef={"resource": "limits.memory", "divisor": "1Gi"})
    assert value_of(divided, resources=resources) == "2"
    assert value_of(reference(resourceFieldRef={"resource": "requests.cpu"}), resources=resources) == "2"


@pytest.mark.parametrize(
    ("origin", "sentence"),
    [
        ({"secretKeyRef": {"name": "none", "key": "k"}}, "Secret none does not exist"),
        ({"configMapKeyRef": {"name": "settings", "key": "shape"}}, "ConfigMap settings has no key shape"),
        ({"fieldRef": {"fieldPath": "spec.colour"}}, "spec.colour is not a field"),
        ({"fileKeyRef": {}}, "fileKeyRef is not available"),
    ],
    ids=["object", "key", "field", "kind"],
)
def test_what_is_missing_is_named(origin: Object, sentence: str) -> None:
    with pytest.raises(Permanent, match=sentence) as caught:
        value_of(reference(**origin))
    assert caught.value.reason == environment.CONFIG_ERROR


def test_env_from_goes_below_env() -> None:
    made = container(
        envFrom=[
            {"configMapRef": {"name": "settings"}, "prefix": "S_"},
            {"secretRef": {"name": "no", "optional": True}},
        ],
        env=[{"name": "S_raw", "value": "mine"}],
    )
    spec = pod(made)
    values = build(spec, spec.main[0], base={}, sources=SOURCES, situation=SITUATION)
    assert values == {"S_colour": "green", "S_raw": "mine"}
    assert environment.references(spec.main[0]) == ({"settings"}, {"no"})


def test_command_defaults_to_the_images_own() -> None:
    bare, full = pod(container(args=["$(A)"])).main[0], pod(container(command=["x"], args=["$(A)"])).main[0]
    assert command(bare, {"A": "1"}, ("espalier-worker",)) == ("espalier-worker", "1")
    assert command(full, {"A": "1"}, ("espalier-worker",)) == ("x", "1")


def test_unfinished_references_stay() -> None:
    assert expand("$(A $A $() $$", {"A": "1"}) == "$(A $A $() $"


@pytest.mark.parametrize(
    ("text", "expected"), [("250m", 0.25), ("1Ki", 1024), ("2e3", 2000), ("1.5G", 1.5e9), ("3", 3)]
)
def test_quantities(text: str, expected: float) -> None:
    assert float(quantity(text)) == expected


@pytest.mark.parametrize("text", ["", "x", "1Q", "1i"])
def test_no_quantities(text: str) -> None:
    with pytest.raises(Permanent, match="is not a quantity"):
        quantity(text)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("espalier-worker:1", "espalier-worker"),
        ("reg:5000/team/espalier-mlx:1.2@sha256:ab", "espalier-mlx"),
        ("espalier-node", "espalier-node"),
    ],
)
def test_images_are_known_by_their_last_word(image: str, name: str) -> None:
    assert images.short_name(image) == name


def test_an_exact_runtime_goes_before_a_glob(tmp_path: Path) -> None:
    known = {"espalier-*": tmp_path / "glob", "espalier-mlx": tmp_path}
    assert images.resolve("espalier-mlx:2", known).bin == tmp_path
    with pytest.raises(Permanent, match="is not a directory"):
        images.resolve("espalier-worker:2", known)
    with pytest.raises(
        Permanent, match=r"image nginx has no runtime on this node.*espalier-\*, espalier-mlx"
    ) as caught:
        images.resolve("nginx", known)
    assert caught.value.reason == images.PULL_ERROR


RANGE = IPv4Network("127.77.1.0/28")


def choose(taken: set[str], after: str | None = None, pin: str | None = None) -> str:
    metadata = {"annotations": {"espalier.dev/pod-ip": pin}} if pin else {}
    return addresses.choose(
        pod_object(metadata=metadata), node="127.77.1.1", pod_range=RANGE, reserved=9, taken=taken, after=after
    )


def test_addresses_go_round() -> None:
    assert choose(set()) == "127.77.1.10"
    assert choose({"127.77.1.10"}, after="127.77.1.10") == "127.77.1.11"
    assert choose(set(), after="127.77.1.14") == "127.77.1.10"
    with pytest.raises(Retryable, match="all addresses"):
        choose({f"127.77.1.{x}" for x in range(10, 15)})


def test_a_pinned_address_is_given_or_waited_for() -> None:
    assert choose(set(), pin="127.77.1.5") == "127.77.1.5"
    with pytest.raises(Retryable, match=r"127\.77\.1\.5 still belongs"):
        choose({"127.77.1.5"}, pin="127.77.1.5")
    with pytest.raises(Permanent, match="is not an IPv4 address"):
        choose(set(), pin="here")


UNSUPPORTED: dict[str, tuple[Object, Object, str]] = {
    "host network": ({}, {"hostNetwork": True}, "hostNetwork"),
    "memory volume": ({}, {"volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}]}, "medium Memory"),
    "runtime class": ({}, {"runtimeClassName": "gvisor"}, "runtimeClassName"),
    "user namespace": ({}, {"hostUsers": False}, "hostUsers"),
    "host path": ({}, {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "volume v: type hostPath"),
    "host port": ({"ports": [{"containerPort": 1, "hostPort": 1}]}, {}, "hostPort"),
    "privileged": ({"securityContext": {"privileged": True}}, {}, "privileged"),
    "root": ({"securityContext": {"runAsUser": 0}}, {}, "runAsUser 0"),
    "root by its pod": ({}, {"securityContext": {"runAsUser": 0}}, "runAsUser 0"),
    "the group of root": ({"securityContext": {"runAsGroup": 0}}, {}, "runAsGroup 0"),
    "volumes of the group of root": ({}, {"securityContext": {"fsGroup": 0}}, "fsGroup 0"),
    "root among further groups": ({}, {"securityContext": {"supplementalGroups": [7, 0]}}, "supplementalGroups 0"),
    "programs": ({"volumeMounts": [{"name": "v", "mountPath": "/usr/sbin"}]}, {}, "mountPath /usr/sbin"),
    "a mount in a volume": (
        {"volumeMounts": [{"name": "v", "mountPath": "/a"}, {"name": "w", "mountPath": "/a/b"}]},
        {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "secret": {"secretName": "s"}}]}, "inside volume v",
    ),
    "capabilities": ({"securityContext": {"capabilities": {"add": ["X"]}}}, {}, "capabilities"),
    "device": ({"volumeDevices": [{}]}, {}, "volumeDevices"),
    "propagation": ({"volumeMounts": [{"name": "v", "mountPropagation": "HostToContainer"}]}, {}, "mountPropagation"),
    "bundle": (
        {},
        {"volumes": [{"name": "v", "projected": {"sources": [{"clusterTrustBundle": {}}]}}]},
        "clusterTrust",
    ),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_cannot_be_honoured_is_a_sentence(case: str) -> None:
    fields, spec, word = UNSUPPORTED[case]
    made = pod(container(**fields), **spec)
    assert word in (podspec.unsupported(made, made.main[0]) or "")


def test_groups() -> None:
    assert podspec.further_groups(pod()) == ()
    grouped = pod(securityContext={"fsGroup": 7, "supplementalGroups": [9, 7]})
    assert podspec.further_groups(grouped) == (7, 9)
    assert podspec.volume_group(grouped) == 7


def test_an_ordinary_pod_is_supported() -> None:
    security = {"privileged": False, "runAsNonRoot": True, "runAsUser": 7}
    made = pod(container(securityContext=security), hostNetwork=False, securityContext={"runAsUser": 0, "fsGroup": 7})
    assert podspec.unsupported(made, made.main[0]) is None


@pytest.mark.parametrize(
    ("own", "shared", "expected"),
    [
        ({}, {}, (64100, 64100)),
        ({}, {"runAsUser": 5}, (5, 5)),
        ({"runAsUser": 6, "runAsGroup": 7}, {"runAsUser": 5}, (6, 7)),
    ],
    ids=["node's", "pod's", "container's"],
)
def test_users(own: Object, shared: Object, expected: tuple[int, int]) -> None:
    made = pod(container(securityContext=own), securityContext=shared)
    assert podspec.user_and_group(made, made.main[0], 64100) == expected
