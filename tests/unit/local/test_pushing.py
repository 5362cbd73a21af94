"""Where `make push` would send images, and what it says of a place that is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from espalier_kit.errors import Misconfigured
from espalier_local import building, pushing, recipe
from espalier_local.places import Places, places_from


@pytest.mark.parametrize(("target", "said"), [
    ("harbour.example.edu/platform", "docker://harbour.example.edu/platform/espalier-worker:1.2.3"),
    ("harbour.example.edu:5000/platform/", "docker://harbour.example.edu:5000/platform/espalier-worker:1.2.3"),
    ("docker-archive:/srv", "docker-archive:/srv/espalier-worker.tar:espalier.local/espalier-worker:1.2.3"),
])
def test_a_place_for_images(target: str, said: str) -> None:
    assert pushing.destination(target, "worker", "1.2.3") == said


@pytest.mark.parametrize("target", ["", "docker-archive:", "harbour.example.edu/espalier:1", "docker://host/path"])
def test_what_is_no_place_is_a_sentence(target: str) -> None:
    with pytest.raises(Misconfigured, match="is no place for images"):
        pushing.destination(target, "worker", "1.2.3")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """This checkout, with an empty cache."""
    return places_from({**os.environ, "XDG_CACHE_HOME": str(tmp_path)})


def test_the_plan_has_every_image_of_the_checkout_and_builds_nothing(places: Places) -> None:
    commands = pushing.plan(places, "harbour.example.edu/platform")
    project, _, keys = building.wanted(places)
    assert [command[-3:] for command in commands] == [
        ["push", f"localhost/espalier-{program}:{keys.images}",
         f"docker://harbour.example.edu/platform/espalier-{program}:{project.version}"]
        for program in recipe.PROGRAMS
    ]
    assert all(command[0] == "buildah" for command in commands)
    assert not (places.cache / "images/built").exists()


def test_a_place_that_is_none_ends_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        pushing.main(["", "--dry-run"])
    assert ended.value.code == 78
    assert "give HOST/PATH of a registry" in capsys.readouterr().err
