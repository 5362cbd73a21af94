"""Asking judges over real sockets: failing over, waiting, names in certificates, and saying what happened."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.model_server import ScriptedServer, serving
from espalier_api.tasks import JudgeSettings
from espalier_grading import bundle
from espalier_grading.archive import write_tar
from espalier_grading.intake import prepare
from espalier_grading.judge import Question, ask_about
from espalier_grading.servers import OWN_PATIENCE_SECONDS, Reply, Servers, candidates
from espalier_kit.certificates import issue, make_authority
from espalier_kit.clock import SystemClock
from espalier_kit.execution import ModelEndpoint, PlatformFault
from tests.support import classroom
from tests.support.grading import LentContext, MemoryArtifacts, endpoint

SETTINGS = JudgeSettings(max_tokens=64, temperature=0.1, seed=7)


def _question() -> Question:
    parsed = bundle.parse(write_tar(classroom.bundle()))
    files = {"squares.ipynb": classroom.notebook(classroom.GOOD_CODE, classroom.GOOD_TEXT)}
    prepared = prepare(parsed, write_tar(files), pseudonym="s-1", folder="ann")
    return ask_about(parsed, prepared, judge="code", fence="f00d")


async def _ask(*endpoints: ModelEndpoint, seconds: float = 20.0) -> Reply:
    context = LentContext(MemoryArtifacts(), endpoints)
    return await Servers(SystemClock()).ask(_question(), SETTINGS, context=context, seconds=seconds)


def _closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_a_judge_asks_its_own_server_for_constrained_json_and_measures_it() -> None:
    own = ScriptedServer("qwen")
    async with serving(own) as url:
        reply = await _ask(endpoint("feedback", _closed_port()), endpoint("code", url))
    (request,) = own.requests
    assert (request["max_tokens"], request["temperature"], request["seed"]) == (64, 0.1, 7)
    assert request["response_format"]["json_schema"]["strict"] is True
    assert [m["role"] for m in request["messages"]] == ["system", "user"]
    assert not reply.is_failover
    assert (reply.call.server, reply.call.model, reply.call.tokens_per_second) == ("mac/code", "qwen", 30.0)
    assert reply.call.total_tokens == reply.call.prompt_tokens + reply.call.output_tokens > 0
    assert reply.call.started <= reply.call.ended


@pytest.mark.parametrize("failure", [500, 502, 503, 404, 401], ids=str)
async def test_a_server_that_refuses_is_replaced_visibly_by_the_other_judges(failure: int) -> None:
    other = ScriptedServer("gpt-oss")
    async with serving(ScriptedServer("qwen", failures=[failure])) as own_url, serving(other) as other_url:
        reply = await _ask(endpoint("code", own_url), endpoint("feedback", other_url))
    assert reply.is_failover
    assert other.requests[0]["model"] == "feedback-model"


async def test_a_dead_server_is_replaced_and_fallbacks_come_last() -> None:
    async with serving(ScriptedServer("ollama")) as url:
        reply = await _ask(
            endpoint("fallback", url), endpoint("code", _closed_port()), endpoint("feedback", _closed_port())
        )
    assert reply.is_failover
    assert reply.call.model == "ollama"


async def test_a_judge_whose_server_was_deleted_is_not_waited_for() -> None:
    async with serving(ScriptedServer("other")) as url:
        began = time.monotonic()
        reply = await _ask(endpoint("feedback", url))
    assert reply.is_failover
    assert time.monotonic() - began < OWN_PATIENCE_SECONDS / 2


async def test_too_many_requests_is_waited_out_on_the_same_server() -> None:
    own = ScriptedServer("qwen", failures=[429, 429])
    async with serving(own) as url, serving(ScriptedServer("other")) as other:
        reply = await _ask(endpoint("code", url), endpoint("feedback", other))
    assert not reply.is_failover
    assert len(own.requests) == 1


async def test_when_no_server_answers_the_platform_is_at_fault_and_says_why() -> None:
    async with serving(ScriptedServer("qwen", failures=[500])) as url:
        with pytest.raises(
            PlatformFault, match=r"mac/code: HTTP 500: scripted failure; mac/feedback: ConnectError"
        ) as caught:
            await _ask(endpoint("code", url), endpoint("feedback", _closed_port()))
    assert caught.value.reason == "ModelUnavailable"


async def test_without_any_endpoint_the_platform_is_at_fault() -> None:
    with pytest.raises(PlatformFault, match="no model endpoint"):
        await _ask(seconds=0.5)


def _certificate(folder: Path, name: str) -> tuple[tuple[str, str], str]:
    now = datetime.now(UTC)
    authority = make_authority("test", now)
    pair = issue(authority, name, now, hosts=[name], is_server=True)
    (folder / "tls.crt").write_bytes(pair.certificate)
    (folder / "tls.key").write_bytes(pair.key)
    return (str(folder / "tls.crt"), str(folder / "tls.key")), authority.certificate.decode()


async def test_the_certificates_name_and_the_key_are_checked_whatever_address_is_dialled(tmp_path: Path) -> None:
    certificate, ca = _certificate(tmp_path, "ps1-code.class.svc")
    server = ScriptedServer("qwen", api_key="secret")
    async with serving(server, certificate=certificate) as url:

        def with_(**more: str) -> ModelEndpoint:
            return endpoint("code", url, **more)

        good = with_(ca_pem=ca, server_name="ps1-code.class.svc", api_key="secret")
        assert (await _ask(good)).call.model == "qwen"
        refused: list[tuple[ModelEndpoint, str]] = [
            (with_(ca_pem=ca, server_name="other.class.svc", api_key="secret"), "CERTIFICATE_VERIFY_FAILED"),
            (with_(ca_pem=ca, api_key="secret"), "CERTIFICATE_VERIFY_FAILED"),
            (with_(server_name="ps1-code.class.svc", api_key="secret"), "CERTIFICATE_VERIFY_FAILED"),
            (with_(ca_pem=ca, server_name="ps1-code.class.svc", api_key="wrong"), "HTTP 401"),
        ]
        for bad, said in refused:
            with pytest.raises(PlatformFault, match=said):
                await _ask(bad)
    assert "secret" not in repr(good)


async def test_a_hung_server_leaves_time_for_the_next() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with serving(ScriptedServer("other")) as other:
            reply = await _ask(endpoint("code", url), endpoint("feedback", other), seconds=3.0)
    assert reply.is_failover


@pytest.mark.parametrize(
    ("make", "order"),
    [
        pytest.param(lambda role: True, ["code", "feedback", "fallback"], id="all-ready"),
        pytest.param(lambda role: role != "code", ["feedback", "fallback", "code"], id="own-not-ready"),
        pytest.param(lambda role: False, ["code", "feedback", "fallback"], id="none-ready"),
    ],
)
def test_the_order_of_servers(make: Callable[[str], bool], order: list[str]) -> None:
    endpoints = tuple(endpoint(role, "http://x", ready=make(role)) for role in ("fallback", "feedback", "code"))
    assert [e.role for e in candidates(endpoints, "code")] == order
