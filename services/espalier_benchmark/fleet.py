"""Several servers that are one target: requests go round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count

from espalier_benchmark.client import Client, Exchange, Style
from espalier_benchmark.items import Item
from espalier_kit.execution import ModelEndpoint


class Fleet:
    """A `Sender` over the ready servers of one target."""

    def __init__(
        self, endpoints: Sequence[ModelEndpoint], now: Callable[[], float], *, name: str, style: Style
    ) -> None:
        self.name = name
        self._clients = [Client(replace(endpoint, name=name), now, style=style) for endpoint in endpoints]
        self._turn = count()

    async def __aenter__(self) -> Fleet:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            await client.__aexit__()

    async def ask(self, item: Item, exchange: Exchange) -> None:
        await self._clients[next(self._turn) % len(self._clients)].ask(item, exchange)
