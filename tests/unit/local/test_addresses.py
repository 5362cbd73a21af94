"""Which loopback range a cluster gets."""

from __future__ import annotations

import errno

import pytest

from espalier_kit.errors import Misconfigured
from espalier_local.addresses import Range, candidates, choose


def free(_: Range) -> OSError | None:
    return None


def test_addresses_follow_the_contract() -> None:
    found = Range(77)
    assert (found.cidr, found.control_plane, found.node(2), found.pods(2), found.coordinator) == (
        "127.77.0.0/16", "127.77.0.1", "127.77.2.1", "127.77.2.0/24", "127.77.1.10",
    )  # fmt: skip


def test_a_name_always_gives_the_same_range_and_never_plain_localhost() -> None:
    assert choose("demo", (), free) == choose("demo", (), free) == next(candidates("demo"))
    assert sorted(c.n for c in candidates("demo")) == list(range(1, 255))


def test_a_range_of_another_cluster_is_passed_over() -> None:
    first, second = list(candidates("demo"))[:2]
    assert choose("demo", {first.n}, free) == second


def test_a_range_that_a_stranger_holds_is_passed_over() -> None:
    first, second = list(candidates("demo"))[:2]

    def blocker(candidate: Range) -> OSError | None:
        return OSError(errno.EADDRINUSE, f"{candidate.control_plane}:6443") if candidate == first else None

    assert choose("demo", (), blocker) == second


def test_a_port_in_use_everywhere_is_named() -> None:
    def blocker(candidate: Range) -> OSError | None:
        return OSError(errno.EADDRINUSE, f"{candidate.control_plane}:6443")

    with pytest.raises(Misconfigured, match=r"port 6443 is in use .* 0\.0\.0\.0:6443"):
        choose("demo", (), blocker)


def test_no_range_left_is_a_sentence() -> None:
    with pytest.raises(Misconfigured, match="espalier local down"):
        choose("demo", range(256), free)
