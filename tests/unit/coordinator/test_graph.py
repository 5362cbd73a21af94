"""Dependencies as a pure structure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier_coordinator.graph import Graph, Node, check, is_met
from espalier_kit.errors import Permanent
from espalier_kit.execution import Dependency, TaskState, When


def node(key: str, *after: str, when: When = When.DONE) -> Node:
    return key, tuple(Dependency(k, when) for k in after)


def test_known_keys_need_not_be_submitted_again() -> None:
    check([node("b", "a")], {"a"})


def test_a_key_that_exists_is_left_as_it_is_whatever_it_says_now() -> None:
    check([node("a", "ghost")], {"a"})


@pytest.mark.parametrize(("nodes", "sentence"), [
    ([node("a", "b"), node("b", "c"), node("c", "a")], "in a circle"),
    ([node("a", "ghost")], "which the job does not have"),
    ([node("a", "ghost"), node("a")], "which the job does not have"),
])
def test_refusals_are_sentences(nodes: list[Node], sentence: str) -> None:
    with pytest.raises(Permanent, match=sentence):
        check(nodes, set())


@pytest.mark.parametrize(("state", "when", "expected"), [
    (TaskState.DONE, When.DONE, True), (TaskState.DONE, When.FINISHED, True),
    (TaskState.FAILED, When.DONE, False), (TaskState.FAILED, When.FINISHED, True),
    (TaskState.SKIPPED, When.DONE, False), (TaskState.CANCELLED, When.FINISHED, True),
])
def test_edges(state: TaskState, when: When, expected: bool) -> None:
    assert is_met(when, state) is expected


def test_a_failure_skips_along_done_edges_and_releases_finished_ones() -> None:
    graph = Graph()
    nodes = [node("a"), node("b", "a"), node("c", "b"), node("d", "c", when=When.FINISHED)]
    assert graph.add(nodes, lambda _: None) == (["a"], [])
    assert graph.finish("a", TaskState.FAILED) == (["d"], ["b", "c"])


def test_a_task_added_behind_a_failure_is_skipped_at_once() -> None:
    ends = {"a": TaskState.FAILED}
    assert Graph().add([node("b", "a"), node("c", "a", when=When.FINISHED)], ends.get) == (["c"], ["b"])


@st.composite
def dags(draw: st.DrawFn) -> list[Node]:
    count = draw(st.integers(1, 12))
    nodes = []
    for n in range(count):
        after = draw(st.sets(st.integers(0, n - 1), max_size=3)) if n else set()
        nodes.append((str(n), tuple(Dependency(str(k), draw(st.sampled_from(When))) for k in sorted(after))))
    return nodes


@given(dags(), st.data())
def test_every_task_ends_and_none_before_what_it_waits_for(nodes: list[Node], data: st.DataObject) -> None:
    graph, ends = Graph(), dict[str, TaskState]()
    edges = dict(nodes)
    ready, skipped = graph.add(nodes, lambda _: None)
    assert not skipped
    while ready:
        key = ready.pop(data.draw(st.integers(0, len(ready) - 1)))
        assert all(is_met(d.when, ends[d.key]) for d in edges[key])
        ends[key] = data.draw(st.sampled_from([TaskState.DONE, TaskState.FAILED]))
        more, skipped = graph.finish(key, ends[key])
        ends.update(dict.fromkeys(skipped, TaskState.SKIPPED))
        ready += more
    assert ends.keys() == edges.keys()
    for key, state in ends.items():
        is_doomed = any(not is_met(d.when, ends[d.key]) for d in edges[key])
        assert (state is TaskState.SKIPPED) is is_doomed
