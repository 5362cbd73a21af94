"""A cable's rate: read, shown, told to the kernel for both ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier_kit.errors import Misconfigured
from espalier_local.addresses import Cables
from espalier_local.shaping import MAX_RATE, MIN_RATE, parse_rate, rate_of, shape_commands, show_rate, unshape_commands

CABLES = Cables(7)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("1mbit", 1_000_000), ("500kbit", 500_000), ("2.5 Gbit", 2_500_000_000), ("8000bit", 8_000)],
)
def test_a_rate_is_a_number_and_a_unit(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "1", "-1mbit", "1mb", "0mbit", "1kbit", "101gbit", "1mbit 2mbit"])
def test_what_is_no_rate_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Misconfigured, match="such as 1mbit"):
        parse_rate(text)


@given(st.integers(MIN_RATE, MAX_RATE))
def test_what_is_shown_can_be_read(rate: int) -> None:
    assert parse_rate(show_rate(rate)) == rate


def test_both_ends_of_the_cable_get_the_rate() -> None:
    commands = shape_commands(CABLES, "mac-studio-1", 2, 1_000_000)
    classes = [command for command in commands if "class" in command]
    assert {command[command.index("dev") + 1] for command in classes} == {"esp7-2", "eth0"}
    assert {command[command.index("rate") + 1] for command in classes} == {"1000000bit"}
    assert {command[command.index("burst") + 1] for command in classes} == {"1514b"}, "a packet must fit at any rate"
    inside = [command for command in commands if "eth0" in command]
    assert all(command[:3] == ("tc", "-n", "esp7-mac-studio-1") for command in inside)


def test_both_ends_lose_it_again() -> None:
    assert unshape_commands(CABLES, "linux-1", 1) == [
        ("tc", "qdisc", "delete", "dev", "esp7-1", "root"),
        ("tc", "-n", "esp7-linux-1", "qdisc", "delete", "dev", "eth0", "root"),
    ]


def test_the_rate_is_read_from_the_kernels_words() -> None:
    words = "class htb 1:1 root prio 0 rate 1500Kbit ceil 1500Kbit burst 1875b cburst 1875b \n"
    assert rate_of(CABLES, 2, ask=lambda _: words) == 1_500_000
    assert rate_of(CABLES, 2, ask=lambda _: "") is None
