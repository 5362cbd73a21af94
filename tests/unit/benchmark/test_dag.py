"""The tasks of a job: who waits for whom, and what makes two jobs ask the same."""

from __future__ import annotations

from espalier_api.benchmarkload import Limits
from espalier_api.benchmarktasks import AccuracySettings, AccuracyTask, GenerateTask, PackSettings
from espalier_benchmark.dag import CHUNK, QuestionSet, accuracy_key, children, chunk_of, targets_of
from espalier_kit.execution import TaskSpec, When
from tests.support.benchmarks import QUIET, settings, target

PACK = PackSettings(name="bfcl:simple", items=40, template="t")
SETS = [QuestionSet(0, 40, pack=PACK)]


def tasks(**fields: object) -> dict[str, TaskSpec]:
    accuracy = AccuracySettings(packs=(PACK,))
    made = children(settings(accuracy=accuracy, **fields), SETS, admit_key="admit", now=100.0)
    return {task.key: task for task in made}


def test_questions_come_after_the_load_however_it_ended_and_the_report_after_all() -> None:
    found = tasks(load=QUIET, generators=2)
    questions = [accuracy_key(0, "bfcl:simple", start) for start in range(0, 40, CHUNK)]
    assert list(found) == ["generate/0", "generate/1", "loaded", *questions, "report"]
    assert [(d.key, d.when) for d in found["loaded"].depends_on] == [
        ("generate/0", When.FINISHED), ("generate/1", When.FINISHED),
    ]  # fmt: skip
    assert [d.key for d in found[questions[0]].depends_on] == ["loaded"]
    assert {d.key for d in found["report"].depends_on} == {"admit", "generate/0", "generate/1", *questions}
    counts = [AccuracyTask.model_validate(found[key].payload).count for key in questions]
    assert counts == [16, 16, 8]


def test_generators_share_a_schedule_and_a_start() -> None:
    found = tasks(load=QUIET, generators=3)
    payloads = [GenerateTask.model_validate(found[f"generate/{number}"].payload) for number in range(3)]
    assert [payload.number for payload in payloads] == [0, 1, 2]
    assert len({payload.model_copy(update={"number": 0}).model_dump_json() for payload in payloads}) == 1


def test_the_same_questions_of_another_job_are_the_same_task() -> None:
    key = accuracy_key(0, "bfcl:simple", 16)
    one = tasks(job="one", load=QUIET, cache=True)[key]
    other = tasks(job="other", generators=4, cache=True)[key]
    assert (one.payload, one.cache) == (other.payload, "read-write")
    assert [d.key for d in one.depends_on] == [d.key for d in other.depends_on]
    revised = tasks(job="one", cache=True, targets=(target(revision="r2"),))[key]
    assert revised.payload != one.payload
    assert tasks(job="one")[key].cache == ""


def test_under_a_limit_questions_know_what_the_load_has_spent() -> None:
    found = tasks(load=QUIET, limits=Limits(max_cost=1))
    chunk = found[accuracy_key(0, "bfcl:simple", 0)]
    assert {d.key for d in chunk.depends_on} == {"loaded", "generate/0"}
    shares = [AccuracyTask.model_validate(task.payload).share for key, task in found.items() if key.startswith("acc")]
    assert sum(shares) == 1.0


def test_without_a_load_questions_wait_for_the_admission_alone() -> None:
    found = tasks()
    assert [d.key for d in found["loaded"].depends_on] == ["admit"]
    assert not any(key.startswith("generate") for key in found)


def test_a_key_tells_its_chunk() -> None:
    assert chunk_of(accuracy_key(1, "reasoning-gym:ab", 32)) == (1, "reasoning-gym:ab", 32)


def test_a_judge_compares_two_targets_in_one_go() -> None:
    assert [list(targets_of("judge", n)) for n in (1, 2)] == [[0], [1]]
    assert list(targets_of("coherence", 2)) == [0, 1]
