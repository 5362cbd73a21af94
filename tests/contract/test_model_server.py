"""The life of a model server's process: drain, TLS and the key, the watchdog, settings that cannot work."""

from __future__ import annotations

import signal
import ssl
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import openai
import pytest

from espalier_kit.certificates import issue, make_authority
from tests.support.model_server import ASK, NAME, Server, json_schema, occupy, serving, until


def test_a_drain_finishes_what_runs_and_refuses_the_rest() -> None:
    long = {"type": "string", "minLength": 3_000, "maxLength": 3_100}
    asked = {"model": NAME, "messages": [ASK], "max_tokens": 9_000, "response_format": json_schema(long)}
    answers: list[object] = []
    with serving("random://tiny", within_s=60) as server, server.client() as client, server.client() as other:
        running = threading.Thread(target=lambda: answers.append(client.chat.completions.create(**asked)))
        running.start()
        until(lambda: server.ready().json()["running"] == 1, 20, server)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.ready().status_code == 503, 20, server)
        with pytest.raises(openai.InternalServerError) as refused:
            other.chat.completions.create(model=NAME, messages=[ASK], max_tokens=2)
        assert (refused.value.status_code, refused.value.code) == (503, "server_shutting_down")
        running.join(30)
        assert answers[0].choices[0].finish_reason == "stop"
        assert server.wait() == 0


def test_a_drain_has_an_end() -> None:
    streams: list[openai.Stream[object]] = []
    with serving("random://tiny", within_s=60, DRAIN_S=0.5) as server:
        occupy(server, streams)
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIError, match="shutting down"):
            list(streams[0])
        assert server.wait() == 0
        assert time.monotonic() - begun < 15


def test_tls_and_the_key(tmp_path: Path) -> None:
    authority = make_authority("test", datetime.now(UTC))
    pair = issue(authority, "server", datetime.now(UTC), hosts=["127.0.0.1"], is_server=True)
    for name, data in {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": authority.certificate}.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "api-key").write_text("secret\n")
    server = Server("random://tiny", TLS_DIR=tmp_path, API_KEY_FILE=tmp_path / "api-key")
    trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    try:
        until(lambda: server.ready(trusted).status_code == 200, 60, server)
        for path in ("/health", "/ready", "/metrics"):
            assert httpx.get(f"{server.url}{path}", verify=trusted).status_code == 200
        with httpx.Client(verify=trusted) as transport:
            with pytest.raises(openai.AuthenticationError) as refused:
                server.client(api_key="wrong", http_client=transport).models.list()
            assert refused.value.code == "invalid_api_key"
            good = server.client(api_key="secret", http_client=transport)
            assert good.chat.completions.create(model=NAME, messages=[ASK], max_tokens=2).choices
    finally:
        assert server.end() == 0


def test_work_without_tokens_ends_the_process_so_that_it_is_restarted() -> None:
    streams: list[openai.Stream[object]] = []
    with serving("random://tiny", within_s=60, WATCHDOG_S=0.000_001) as server:
        occupy(server, streams)
        until(lambda: httpx.get(f"{server.url}/health").status_code == 503, 20, server)
        assert server.wait() == 1
        with pytest.raises((openai.APIError, httpx.TransportError)):
            list(streams[0])
    assert any("no token came" in line for line in server.lines)


def test_a_missing_certificate_is_a_sentence(tmp_path: Path) -> None:
    server = Server("random://tiny", TLS_DIR=tmp_path)
    assert server.wait() == 78
    assert any(line.startswith("error: ") and "TLS_DIR" in line for line in server.lines)


def test_a_port_in_use_is_a_sentence() -> None:
    with serving("random://tiny", within_s=60) as holder:
        server = Server("random://tiny", PORT=holder.url.rpartition(":")[2])
        assert server.wait() == 78
    assert any(line.startswith("error: ") and "cannot listen" in line for line in server.lines)


def test_a_model_that_cannot_be_loaded_ends_the_program_with_a_sentence() -> None:
    server = Server("/nowhere/model.gguf")
    assert server.wait() == 78
    assert any(line.startswith("error: ") and "no such file" in line for line in server.lines)
