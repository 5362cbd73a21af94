"""API keys and client certificates: who is let in, as whom, and which sentence the others read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from espalier_coordinator.access import EitherAccess, Identity, identify
from espalier_coordinator.callers import LOOK_S, NamedAccess, add_key, read_callers
from espalier_kit.clock import ManualClock
from espalier_kit.errors import Conflict, Forbidden, Misconfigured
from tests.support.callers import digest, named_access, write_callers


@pytest.mark.parametrize(("fields", "expected"), [
    ({"role": "admin"}, Identity("c", None, is_admin=True)),
    ({"role": "worker", "namespaces": ["a"]}, Identity("c", "a")),
    ({"role": "worker", "namespaces": ["*"]}, Identity("c", None)),
    ({"role": "worker", "namespaces": ["a"], "pool": "p"}, Identity("c", "a", pool="p")),
    ({"role": "submitter", "namespaces": ["a", "b"]},
     Identity("c", "a", namespaces=frozenset({"b"}), may_submit=True, may_work=False)),
])
async def test_a_role_says_what_a_key_may(tmp_path: Path, fields: dict[str, Any], expected: Identity) -> None:
    assert await named_access(tmp_path, {"c": fields}).identify("c") == expected


async def test_an_unknown_key_and_an_expired_one_are_refused_with_a_sentence(tmp_path: Path) -> None:
    clock = ManualClock()
    limited = {"role": "worker", "namespaces": ["a"], "expires": "2026-01-01T00:01:00Z"}
    access = named_access(tmp_path, {"c": limited}, clock)
    assert (await access.identify("c")).name == "c"
    with pytest.raises(Forbidden, match="nobody has this API key"):
        await access.identify("guess")
    await clock.advance(61)
    with pytest.raises(Forbidden, match="credentials of c expired at 2026-01-01T00:01:00"):
        await access.identify("c")


async def test_a_certificate_is_known_by_any_of_its_names(tmp_path: Path) -> None:
    access = named_access(tmp_path, {"gpu-1": {"role": "worker", "namespaces": ["a"], "certificate": "gpu-1.lab"}})
    found = await identify(access, "", frozenset({"something", "gpu-1.lab"}))
    assert (found.name, found.namespace) == ("gpu-1", "a")
    with pytest.raises(Forbidden, match="certificate of somebody"):
        await identify(access, "", frozenset({"somebody"}))
    with pytest.raises(Forbidden, match="send 'Authorization: Bearer TOKEN'"):
        await identify(access, "", frozenset())


async def test_a_file_that_changes_counts_and_one_that_breaks_does_not(tmp_path: Path) -> None:
    clock = ManualClock()
    path = write_callers(tmp_path / "callers.yaml", {"old": {"role": "admin"}})
    access = NamedAccess(path, clock)
    write_callers(path, {"new": {"role": "admin"}, "newer": {"role": "admin"}})
    await clock.advance(LOOK_S)
    assert (await access.identify("new")).is_admin
    with pytest.raises(Forbidden):
        await access.identify("old")
    path.write_text("callers: nonsense")
    await clock.advance(LOOK_S)
    assert (await access.identify("newer")).is_admin


async def test_who_is_unknown_to_the_file_may_be_known_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    either = EitherAccess(named_access(tmp_path, {"here": {"role": "admin"}}),
                          named_access(tmp_path / "b", {"there": {"role": "admin"}}))
    assert [(await either.identify(key)).name for key in ("here", "there")] == ["here", "there"]
    with pytest.raises(Forbidden):
        await either.identify("nowhere")


async def test_a_key_that_has_expired_is_asked_about_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    over = {"here": {"role": "admin", "expires": "2025-01-01T00:00:00Z"}}
    either = EitherAccess(named_access(tmp_path, over, ManualClock()),
                          named_access(tmp_path / "b", {"here": {"role": "admin"}}))
    with pytest.raises(Forbidden, match="expired"):
        await either.identify("here")


@pytest.mark.parametrize(("text", "sentence"), [
    ("", "expected `callers:`"),
    ("callers: {}", "expected `callers:`"),
    ("callers:\n- {name: a, role: admin}", "either key or certificate"),
    (f"callers:\n- {{name: a, role: worker, key: '{digest('x')}'}}", "give namespaces"),
    ("callers:\n- {name: a, role: king, certificate: a}", "role"),
    ("callers:\n- {name: a, role: admin, key: secret}", "key"),
    ("callers:\n- {name: a, role: admin, certificate: a, age: 3}", "age"),
    ("callers:\n- {name: a, role: admin, certificate: a}\n- {name: a, role: admin, certificate: b}", "two callers"),
    ("callers:\n- {name: a, role: admin, certificate: c}\n- {name: b, role: admin, certificate: c}",
     "'a' and 'b' have the same key or certificate"),
    ("callers:\n- {name: a, role: submitter, namespaces: [n], certificate: a, pool: p}", "only a worker has a pool"),
    ("callers: [", "callers file"),
])
def test_a_file_that_is_wrong_is_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(Misconfigured, match=sentence):
        read_callers(tmp_path / "c.yaml")


def test_a_new_key_is_shown_once_and_kept_as_a_digest(tmp_path: Path) -> None:
    path = tmp_path / "callers.yaml"
    first = add_key(path, name="one", role="worker", namespaces=["a"])
    second = add_key(path, name="two", role="submitter", namespaces=["a", "b"])
    callers = read_callers(path)
    assert [callers.by_key(key) is not None for key in (first, second, "other")] == [True, True, False]
    assert path.stat().st_mode & 0o077 == 0
    assert first not in path.read_text()
    with pytest.raises(Conflict, match="'one' already"):
        add_key(path, name="one", role="worker", namespaces=["a"])
    with pytest.raises(Misconfigured, match="give namespaces"):
        add_key(path, name="three", role="worker", namespaces=[])
