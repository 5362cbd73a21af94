"""`python -m espalier_api`: writes the generated files, and notices when they are stale."""

from __future__ import annotations

from pathlib import Path

import pytest

from espalier_api.__main__ import generated_files, main
from espalier_api.reasons import REASONS
from espalier_api.schema import KINDS


def test_what_generate_writes_verify_accepts(tmp_path: Path) -> None:
    assert main(["generate", "--root", str(tmp_path)]) == 0
    assert main(["verify", "--root", str(tmp_path)]) == 0


def test_verify_names_a_stale_file_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["generate", "--root", str(tmp_path)])
    (tmp_path / "crds/gradingjobs.yaml").write_text("kind: Something\n")
    (tmp_path / "docs/reference/api.md").unlink()
    assert main(["verify", "--root", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "crds/gradingjobs.yaml differs" in said
    assert "docs/reference/api.md differs" in said
    assert "make generate" in said


def test_the_charts_custom_resources_outlive_the_chart() -> None:
    charts = {name: text for name, text in generated_files().items() if name.startswith("charts/espalier-crds/")}
    assert len(charts) == len(KINDS)
    assert all("helm.sh/resource-policy: keep" in text for text in charts.values())


def test_every_reason_is_on_the_troubleshooting_page() -> None:
    page = generated_files()["docs/troubleshooting.md"]
    assert all(f"| `{name}` |" in page for name in REASONS)


def test_the_reference_names_every_field_once() -> None:
    page = generated_files()["docs/reference/api.md"]
    page = page[page.index("## GradingJob") : page.index("## BenchmarkJob")] + page[page.index("## PodOverrides") :]
    for field in ("spec.runPolicy.cancel", "spec.models.code.template", "status.scores.mean", "lastTransitionTime"):
        assert page.count(f"| `{field}` |") == 1, field
