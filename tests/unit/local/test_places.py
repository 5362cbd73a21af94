"""Names and directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from espalier_kit.errors import Misconfigured
from espalier_local.places import checked_name, default_name, places_from


def test_two_checkouts_have_two_names_that_are_allowed() -> None:
    one, other = default_name(Path("/a/espalier")), default_name(Path("/b/espalier"))
    assert one != other
    assert checked_name(default_name(Path("/x/Mein Projekt!"))).startswith("mein-projekt-")


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "-a", "a-", "x" * 41])
def test_a_name_that_is_no_label_is_refused(name: str) -> None:
    with pytest.raises(Misconfigured, match="lower-case"):
        checked_name(name)


def test_the_cache_is_where_the_user_keeps_caches() -> None:
    assert places_from({"HOME": "/h"}).cache == Path("/h/.cache/espalier")
    assert places_from({"HOME": "/h", "XDG_CACHE_HOME": "/c"}).clusters == Path("/c/espalier/clusters")
