"""Whose an object is that already has a name which we want."""

from __future__ import annotations

from espalier_kit.errors import Conflict, Retryable
from espalier_kube.cluster import Object
from espalier_kube.objects import is_owned_by


def check_ours(live: Object, wished: Object) -> None:
    """Raises `Conflict` (`NameTaken`) where it belongs to somebody else, `Retryable` where to a former owner of ours.

    A wish without an owner is shared by all, and nobody's in particular.
    """
    owner = next(iter(wished["metadata"].get("ownerReferences") or ()), None)
    if owner is None or is_owned_by(live, owner["uid"]):
        return
    what = f"{wished['kind']} {live['metadata']['namespace']}/{live['metadata']['name']}"
    if any((ref["kind"], ref["name"]) == (owner["kind"], owner["name"]) for ref in _owners(live)):
        raise Retryable(f"{what} of a former {owner['kind']} {owner['name']} is still being removed")
    raise Conflict(f"{what} exists and belongs to somebody else: rename or delete it", reason="NameTaken")


def _owners(obj: Object) -> list[Object]:
    return obj["metadata"].get("ownerReferences") or []
