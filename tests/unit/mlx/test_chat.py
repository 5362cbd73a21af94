"""What a chat request may say."""

import json

import pytest

from espalier_mlx.chat import parse
from espalier_mlx.errors import ApiError

MESSAGES = [{"role": "user", "content": "hi"}]


def body(**fields):
    return json.dumps({"model": "m", "messages": MESSAGES, **fields}).encode()


def test_defaults_are_those_of_openai():
    request = parse(body())
    assert (request.sampling.temperature, request.sampling.top_p, request.sampling.seed) == (1.0, 1.0, None)
    assert (request.limit, request.stops, request.answer_schema) == (None, (), None)


def test_developer_is_system_and_parts_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = parse(body(messages=[{"role": "developer", "content": parts}, *MESSAGES]))
    assert request.messages[0].plain() == {"role": "system", "content": "ab"}


def test_fields_that_change_nothing_are_accepted():
    parse(body(n=1, user="u", logprobs=False, presence_penalty=0, tools=[], tool_choice=None, store=False))


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        pytest.param({"n": 2}, "n", "remove it", id="n"),
        pytest.param({"tools": [{"type": "function"}]}, "tools", "remove it", id="tools"),
        pytest.param({"logprobs": True}, "logprobs", "remove it", id="logprobs"),
        pytest.param({"frequency_penalty": 0.5}, "frequency_penalty", "remove it", id="penalty"),
        pytest.param({"tempratur": 0.5}, "tempratur", "remove it", id="typing error"),
        pytest.param({"temperature": 3}, "temperature", "less than or equal to 2", id="range"),
        pytest.param({"max_tokens": 0}, "max_tokens", "greater than or equal to 1", id="no tokens"),
        pytest.param({"messages": []}, "messages", "at least 1", id="no messages"),
        pytest.param({"stop": ["a"] * 5}, "stop", "at most 4", id="stops"),
        pytest.param({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", "system", id="role"),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
            "messages.0.content", "images, audio and files are not read", id="images are never fetched",
        ),
        pytest.param({"response_format": {"type": "grammar"}}, "response_format", "json_schema", id="format"),
    ],
)
def test_the_rest_is_refused_with_a_sentence(fields, param, says):
    with pytest.raises(ApiError) as refused:
        parse(body(**fields))
    assert refused.value.status == 400
    assert str(refused.value.param).startswith(param)
    assert says in refused.value.message


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"\xff", b'{"a":' * 5000, b'{"model": "\\ud800"}'],
    ids=["empty", "cut", "list", "bytes", "deep", "surrogate"],
)
def test_what_is_no_json_object_is_refused(raw):
    with pytest.raises(ApiError) as refused:
        parse(raw)
    assert refused.value.status == 400
