"""The REST client's pages."""

from __future__ import annotations

import httpx

from espalier_rpc.rest import RestClient


async def test_all_pages_are_one_answer() -> None:
    asked: list[dict[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(dict(request.url.params))
        number = int(request.url.params.get("page_token", "0"))
        token = str(number + 1) if number < 2 else ""
        return httpx.Response(200, json={"jobs": [{"uid": str(number)}], "epoch": "e", "next_page_token": token})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="https://c") as http:
        told = await RestClient(http, token=lambda: "t").get_all("/v1/jobs", "jobs", namespace="ns", tag_filter=[])
    assert told == {"jobs": [{"uid": "0"}, {"uid": "1"}, {"uid": "2"}], "epoch": "e", "next_page_token": ""}
    assert [(q["namespace"], q.get("page_token")) for q in asked] == [("ns", None), ("ns", "1"), ("ns", "2")]
