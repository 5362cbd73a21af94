"""A cluster's record: decided once, read back, of one kind for life."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from espalier_kit.errors import Misconfigured
from espalier_local.layout import Layout
from espalier_local.record import claim, read


def test_a_claim_is_read_back_and_keeps_its_kind(tmp_path: Path) -> None:
    made = claim(tmp_path, "lab", "container")
    assert read(Layout(tmp_path / "lab")) == made == claim(tmp_path, "lab", "container")
    with pytest.raises(Misconfigured, match="say --nodes container, or take it down first"):
        claim(tmp_path, "lab")


def test_two_clusters_never_share_a_number(tmp_path: Path) -> None:
    numbers = [claim(tmp_path, name, "container").address_range.n for name in ("a", "b", "c")]
    assert len(set(numbers)) == 3


def test_a_record_from_before_there_were_kinds_is_of_processes(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "old")
    layout.root.mkdir()
    layout.record.write_text(json.dumps({"name": "old", "n": 9}))
    found = read(layout)
    assert found is not None
    assert (found.kind, found.cables) == ("process", None)
