"""Who a token is, and what that allows."""

from __future__ import annotations

from typing import Any

import pytest

from espalier_coordinator.access import CACHE_S, Identity, ReviewedAccess, identity_of
from espalier_kit.clock import ManualClock
from espalier_kit.errors import Forbidden, Retryable
from espalier_kube.cluster import Object

OPERATOR = "system:serviceaccount:espalier-system:espalier-operator"
WORKER = "system:serviceaccount:team-a:job-worker"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ3In0.c2ln"
"""Of the form of a service account's: {"alg": "RS256"}, claims, a signature."""


class Reviews:
    """Answers TokenReviews from a table of token to user; counts how often it was asked."""

    def __init__(self, users: dict[str, str], audiences: tuple[str, ...] = ("espalier-coordinator",)) -> None:
        self.users = users
        self.audiences = audiences
        self.asked = 0

    async def create(self, obj: Object) -> Object:
        assert (obj["apiVersion"], obj["kind"]) == ("authentication.k8s.io/v1", "TokenReview")
        assert obj["spec"]["audiences"] == ["espalier-coordinator"]
        self.asked += 1
        user = self.users.get(obj["spec"]["token"])
        if user == "away":
            raise Retryable("the API server is away")
        if user is None:
            return {**obj, "status": {"authenticated": False, "error": "token expired"}}
        return {**obj, "status": {"authenticated": True, "user": {"username": user}, "audiences": [*self.audiences]}}


def access(reviews: Any, clock: ManualClock | None = None) -> ReviewedAccess:
    return ReviewedAccess(reviews, [OPERATOR], clock or ManualClock())


@pytest.mark.parametrize(("user", "expected"), [
    (OPERATOR, Identity(OPERATOR, "espalier-system", is_admin=True)),
    (WORKER, Identity(WORKER, "team-a")),
    ("admin", Identity("admin", None, is_admin=True)),
])
def test_names_decide(user: str, expected: Identity) -> None:
    assert identity_of(user, [OPERATOR, "admin"]) == expected


def test_the_canary_submits_and_works_in_its_own_namespace_only() -> None:
    canary = identity_of("system:serviceaccount:espalier-system:espalier-canary", [OPERATOR])
    canary.require_submit("espalier-system")
    canary.require_work("espalier-system")
    with pytest.raises(Forbidden):
        canary.require_submit("team-a")
    with pytest.raises(Forbidden):
        canary.require_work("team-a")


@pytest.mark.parametrize("user", ["jane", "system:node:n1", "system:serviceaccount:", "system:serviceaccount:a:", ""])
def test_anybody_else_is_refused(user: str) -> None:
    with pytest.raises(Forbidden):
        identity_of(user, [OPERATOR])


def test_an_account_acts_in_its_own_namespace_an_administrator_everywhere() -> None:
    worker, operator = Identity(WORKER, "team-a"), Identity(OPERATOR, "espalier-system", is_admin=True)
    worker.require_namespace("team-a")
    operator.require_namespace("team-a")
    assert (worker.reach, operator.reach) == ("team-a", None)
    with pytest.raises(Forbidden, match="'team-b'"):
        worker.require_namespace("team-b")


async def test_the_api_server_is_asked_once_a_minute() -> None:
    clock, reviews = ManualClock(), Reviews({TOKEN: WORKER})
    reviewed = access(reviews, clock)
    for _ in range(3):
        assert (await reviewed.identify(TOKEN)).namespace == "team-a"
    assert reviews.asked == 1
    await clock.advance(CACHE_S + 1)
    await reviewed.identify(TOKEN)
    assert reviews.asked == 2


async def test_an_unknown_token_is_refused_and_not_remembered() -> None:
    reviews = Reviews({})
    reviewed = access(reviews)
    with pytest.raises(Forbidden, match="token expired") as caught:
        await reviewed.identify(TOKEN)
    assert caught.value.reason == "Unauthenticated"
    reviews.users[TOKEN] = WORKER
    assert await reviewed.identify(TOKEN) == Identity(WORKER, "team-a")


@pytest.mark.parametrize("key", [
    "esp_0123", "esp_0123456789abcdef.b.c", "a.b", "a.b.c.d", "e30.e30.e30", "W10.e30.e30", "..", "ä.b.c", "5.b.c",
    "e" * 9 + ".b.c", f"{'W1tb' * 20_000}.b.c",
], ids=lambda key: key[:12])
async def test_what_is_no_service_accounts_token_is_not_shown_to_the_api_server(key: str) -> None:
    reviews = Reviews({key: WORKER})
    with pytest.raises(Forbidden, match="neither the key of a known caller nor a service account's token") as caught:
        await access(reviews).identify(key)
    assert (caught.value.reason, reviews.asked) == ("Unauthenticated", 0)


async def test_a_token_for_another_audience_is_refused() -> None:
    with pytest.raises(Forbidden, match="audience"):
        await access(Reviews({TOKEN: WORKER}, audiences=("https://kubernetes.default.svc",))).identify(TOKEN)


async def test_when_the_api_server_is_away_the_caller_may_try_again() -> None:
    with pytest.raises(Retryable):
        await access(Reviews({TOKEN: "away"})).identify(TOKEN)
