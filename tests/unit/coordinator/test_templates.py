"""Job templates: strict parameters, revisions, restarts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from espalier_coordinator.model import NewTask
from espalier_coordinator.templates import Template, check, render
from espalier_kit.errors import NotFound, Permanent
from espalier_kit.execution import Dependency
from tests.support.coordination import World


def template(payload: Any = None, **fields: Any) -> Template:
    body = json.dumps(payload if payload is not None else {"model": "{model}"}).encode()
    given = {"tasks": (NewTask("run", "t", body),), "required": ("model",), **fields}
    return Template("ns", "bench", **given)


def rendered(payload: Any, parameters: dict[str, str], **fields: Any) -> Any:
    found = template(payload, **fields)
    check(found)
    return json.loads(render(found, parameters)[0].payload)


@pytest.mark.parametrize(("payload", "expected"), [
    ({"a": "{model}"}, {"a": "q-7"}),
    ({"a": ["x {model} y", 3, None, {"b": "{model}{model}"}]}, {"a": ["x q-7 y", 3, None, {"b": "q-7q-7"}]}),
    ({"a": "{{model}} {model}"}, {"a": "{model} q-7"}),
    ({"{model}": "{model}"}, {"{model}": "q-7"}),
], ids=["whole", "inside", "braces", "names stay"])
def test_parameters_are_filled_into_strings(payload: Any, expected: Any) -> None:
    assert rendered(payload, {"model": "q-7"}) == expected


@pytest.mark.parametrize(("text", "value"), [("7", 7), ("1.5", 1.5), ("true", True), ('{"a": [1]}', {"a": [1]})])
def test_json_is_inserted_as_what_it_is(text: str, value: object) -> None:
    assert rendered({"n": "{n:json}"}, {"n": text}, required=("n",)) == {"n": value}


def test_a_value_with_braces_is_not_read_again() -> None:
    assert rendered({"a": "{model}"}, {"model": "{model} {{"}) == {"a": "{model} {{"}


def test_keys_tags_types_and_dependencies_too() -> None:
    tasks = (NewTask("prepare-{model}", "t"), NewTask("run", "{kind}", depends_on=(Dependency("prepare-{model}"),),
                                                      tags=("gpu-{kind}",)))
    made = render(Template("ns", "n", tasks, defaults={"kind": "bench"}, required=("model",)), {"model": "q"})
    assert [(t.key, t.type, t.tags) for t in made] == [("prepare-q", "t", ()), ("run", "bench", ("gpu-bench",))]
    assert made[1].depends_on == (Dependency("prepare-q"),)


def test_defaults_fill_what_was_not_given() -> None:
    fields = {"defaults": {"model": "small"}, "required": ()}
    assert rendered({"m": "{model}"}, {}, **fields) == {"m": "small"}
    assert rendered({"m": "{model}"}, {"model": "big"}, **fields) == {"m": "big"}


@pytest.mark.parametrize(("parameters", "sentence"), [
    ({}, "needs 'model': pass a value for each"),
    ({"model": "q", "modle": "x"}, "has no parameter 'modle': it knows 'model'"),
], ids=["missing", "unknown"])
def test_a_missing_or_unknown_parameter_is_a_sentence(parameters: dict[str, str], sentence: str) -> None:
    with pytest.raises(Permanent, match=sentence):
        render(template(), parameters)


@pytest.mark.parametrize(("given", "sentence"), [
    (template({"a": "{other}"}), "uses 'other': declare them"),
    (template(required=("model", "more")), "declares 'more' and uses them nowhere"),
    (template(defaults={"model": "x"}), "cannot be required and have a default"),
    (template({"a": "{model} {"}), "'{' in '{model} {' means nothing there"),
    (template({"a": "n={model:json}"}), "only where the parameter is the whole string"),
    (template(tasks=()), "has no tasks"),
    (template(tasks=(NewTask("run", "{model}", b"{"),)), "the payload is not JSON"),
    (template(required=("model", "9x")), "'9x' is no parameter name"),
    (Template("ns", "Not A Name", ()), "is no template name"),
], ids=["undeclared", "unused", "twice", "brace", "json inside", "empty", "payload", "parameter", "name"])
def test_a_template_that_means_nothing_is_a_sentence(given: Template, sentence: str) -> None:
    with pytest.raises(Permanent, match=sentence):
        check(given)


def test_a_parameter_that_should_be_json_and_is_not() -> None:
    with pytest.raises(Permanent, match="parameter 'n' must be JSON, got 'many'"):
        rendered({"n": "{n:json}"}, {"n": "many"}, required=("n",))


def test_what_makes_no_job_once_filled_in_is_refused() -> None:
    tasks = (NewTask("{model}", "t"), NewTask("c", "t", depends_on=(Dependency("b"),)))
    with pytest.raises(Permanent, match="depends on 'b', which the job does not have"):
        render(Template("ns", "n", tasks, required=("model",)), {"model": "a"})


# ---------------------------------------------------------------- in the engine


def test_revisions_count_changes_and_survive_a_restart() -> None:
    world = World()
    world.do(world.engine.put_template(template()))
    world.do(world.engine.put_template(template()))
    assert world.engine.template("ns", "bench").revision == 1
    world.do(world.engine.put_template(template({"m": "{model}"})))
    world.crash()
    found = world.engine.template("ns", "bench")
    assert (found.revision, found.tasks[0].payload) == (2, b'{"m": "{model}"}')
    assert world.engine.rendered("ns", "bench", {"model": "q"})[0].payload == b'{"m":"q"}'


def test_two_changes_on_their_way_are_two_revisions() -> None:
    world = World()
    world.is_disk_stuck = True
    for name in ("a", "b"):
        world.do(world.engine.put_template(template({name: "{model}"})))
    with pytest.raises(NotFound):
        world.engine.template("ns", "bench")
    world.is_disk_stuck = False
    world.write()
    assert world.engine.template("ns", "bench").revision == 2


def test_a_deleted_template_is_gone_for_good() -> None:
    world = World()
    world.do(world.engine.put_template(template()))
    world.do(world.engine.delete_template("ns", "bench"))
    world.crash()
    with pytest.raises(NotFound, match="no job template 'bench' in namespace ns"):
        world.engine.rendered("ns", "bench", {})
