"""The example bundle is sound, and the how-to shows it as it is."""

from __future__ import annotations

from pathlib import Path

import yaml

from espalier_api.gradingjob import GradingJobSpec
from espalier_api.tasks import JudgeSettings
from espalier_grading import bundle, course, lint
from espalier_grading.archive import write_tar
from espalier_grading.intake import prepare
from tests.support.grading import settings

ROOT = Path(__file__).resolve().parents[3]
MEANS = ROOT / "examples/grading/means"


def _tar(folder: Path) -> bytes:
    return write_tar({str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()})


def test_the_example_bundle_is_sound_and_its_submissions_can_be_read() -> None:
    parsed = bundle.parse(_tar(MEANS / "bundle"))
    assert lint.lint(parsed, settings("0" * 64, "0" * 64)) == []
    for student in ("ann", "ben"):
        prepared = prepare(parsed, _tar(MEANS / "submissions" / student), pseudonym="s-1", folder=student)
        assert prepared.findings == ()
        assert all(not answer.is_unchanged for answer in prepared.answers)


def test_the_how_to_shows_the_examples_own_file() -> None:
    page = (ROOT / "docs/how-to/write-a-bundle.md").read_text()
    assert f"```yaml\n{(MEANS / 'bundle/assignment.yaml').read_text()}```" in page


def test_the_course_is_sound_under_the_demos_limits() -> None:
    spec = GradingJobSpec.model_validate(yaml.safe_load((ROOT / "examples/grading/course.yaml").read_text())["spec"])
    judges = {
        name: JudgeSettings(max_tokens=m.max_tokens, temperature=m.temperature, seed=m.seed)
        for name, m in (("code", spec.models.code), ("feedback", spec.models.feedback))
    }
    parsed = bundle.parse(course.bundle())
    assert lint.lint(parsed, settings("0" * 64, "0" * 64, **judges)) == []
    assert sum(parsed.tests().values()) == 3
