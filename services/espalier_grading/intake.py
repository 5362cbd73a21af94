"""Intake: a stranger's folder becomes a `Prepared` submission under a pseudonym; outputs and metadata stay behind."""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

from espalier_grading.align import align, is_same
from espalier_grading.archive import read_tar
from espalier_grading.bundle import Bundle, Cell, Notebook, Role, cells_of, read_notebook
from espalier_grading.gate import injection_flags
from espalier_grading.model import Answer, Finding, NotebookRun, Prepared
from espalier_kit.errors import Permanent
from espalier_kit.execution import UserFault

MAX_NOTEBOOK_BYTES = 20 * 1024 * 1024
MIN_REDACTED = 4
"""A student's id shorter than this is left in judged text: replacing every `al` would garble it."""

USER_REASONS = frozenset({"NotANotebook", "NoNotebook", "NotebookTooLarge", "BadArchive"})
"""Reasons of a submission that is not gradable by its own fault."""


def pseudonyms(folders: Iterable[str], *, job_uid: str) -> dict[str, str]:
    """Pseudonym of each folder: the same in every attempt of a job, different in every job, no way back without the
    uid.
    """
    names: dict[str, str] = {}
    for folder in sorted(folders):
        digest = hmac.new(job_uid.encode(), folder.encode(), hashlib.sha256).hexdigest()
        length = next(n for n in range(8, 65) if f"s-{digest[:n]}" not in names.values())
        names[folder] = f"s-{digest[:length]}"
    return names


def prepare(bundle: Bundle, archive: bytes, *, pseudonym: str, folder: str) -> Prepared:
    """Read, align, redact. Raises `UserFault` when a notebook is broken or none of the assignment's is there."""
    try:
        files = read_tar(archive)
    except Permanent as error:
        raise UserFault(f"The submission is {error}.", reason=error.reason) from error
    runs: list[NotebookRun] = []
    answers: list[Answer] = []
    findings: list[Finding] = []
    for notebook in bundle.notebooks:
        path = find_notebook(files, notebook.name)
        cells = () if path is None else _read(files[path], notebook.name)
        if path is None:
            findings.append(
                Finding(kind="MissingNotebook", where=notebook.name, message=f"{notebook.name}.ipynb was not handed in")
            )
        aligned = align(notebook, cells)
        if path is not None:
            findings += aligned.findings
            runs.append(NotebookRun(notebook=notebook.name, kernel=notebook.kernel, cells=aligned.cells))
        answers += _answers(notebook, aligned.answers, folder=folder, pseudonym=pseudonym)
    if not runs:
        wanted = ", ".join(f"{notebook.name}.ipynb" for notebook in bundle.notebooks)
        raise UserFault(f"None of {wanted} was handed in.", reason="NoNotebook")
    return Prepared(pseudonym=pseudonym, notebooks=tuple(runs), answers=tuple(answers), findings=tuple(findings))


def own_run(notebook: Notebook, cells: tuple[Cell, ...]) -> NotebookRun:
    """The bundle's own solution or blank template, as a submission would run: with the full tests."""
    return NotebookRun(notebook=notebook.name, kernel=notebook.kernel, cells=align(notebook, cells).cells)


def find_notebook(files: Mapping[str, bytes], name: str) -> str | None:
    """The path of `name`.ipynb in the submission, the shallowest if there are several."""
    found = [path for path in files if path.rsplit("/", 1)[-1] == f"{name}.ipynb"]
    return min(found, key=lambda path: (path.count("/"), path), default=None)


def redact(text: str, *, folder: str, pseudonym: str) -> str:
    """Text as a judge may see it: normalised, without invisible characters, the student's id replaced.

    The id is normalised like the text: file systems decompose the letters of a folder's name, keyboards do not. Where
    it has several words, such as Anna_Müller, they are found as people write them too, in both orders.
    """
    visible, name = _visible(text), _visible(folder)
    if len(name) >= MIN_REDACTED:
        visible = re.sub("|".join(_spellings(name)), pseudonym, visible, flags=re.IGNORECASE)
    return visible


def _spellings(name: str) -> Iterator[str]:
    """Patterns, the name itself first. Words of one letter are no name: `x_1` is not looked for as `x 1`."""
    yield re.escape(name)
    words = [re.escape(word) for word in re.split(r"[\W_]+", name) if word]
    if len(words) > 1 and min(map(len, words)) > 1:
        for order in (words, words[::-1]):
            yield rf"(?<!\w){r'[ _.,-]{0,2}'.join(order)}(?!\w)"


def _visible(text: str) -> str:
    seen = (c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cf", "Cc", "Co"))
    return unicodedata.normalize("NFC", "".join(seen))


def _read(data: bytes, name: str) -> tuple[Cell, ...]:
    """The cells. What is raised stands in reports that know pseudonyms only: it quotes no path and no content."""
    if len(data) > MAX_NOTEBOOK_BYTES:
        raise UserFault(
            f"{name}.ipynb has {len(data)} bytes; at most {MAX_NOTEBOOK_BYTES} are read.", reason="NotebookTooLarge"
        )
    try:
        return cells_of(read_notebook(data))
    except Permanent as error:
        kind = type(error.__cause__).__name__
        raise UserFault(
            f"{name}.ipynb cannot be graded: it is not a Jupyter notebook ({kind}).", reason=error.reason
        ) from error


def _answers(notebook: Notebook, texts: Mapping[str, str | None], *, folder: str, pseudonym: str) -> list[Answer]:
    answers = []
    for cell in notebook.release:
        if cell.role not in (Role.ANSWER, Role.TASK):
            continue
        text = texts.get(cell.key) or ""
        unchanged = not text.strip() or (cell.role is Role.ANSWER and is_same(text, cell.source))
        answers.append(
            Answer(
                cell=f"{notebook.name}/{cell.key}",
                text=redact(text, folder=folder, pseudonym=pseudonym),
                is_unchanged=unchanged,
                flags=injection_flags(text),
            )
        )
    return answers
