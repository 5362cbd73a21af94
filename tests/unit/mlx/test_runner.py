"""The generation thread: events, cancelling, and faults that harm nobody else."""

import dataclasses
import queue
import time

import mlx.nn as nn
import pytest

from espalier_kit.clock import SystemClock
from espalier_mlx.loading import load_model
from espalier_mlx.pulse import Pulse
from espalier_mlx.runner import Runner, RunnerLimits
from espalier_mlx.work import Failed, Finished, Sampling, TextDelta, Work

LIMITS = RunnerLimits(max_concurrency=2, prefill_step=64, prompt_cache_bytes=2**20)
GREEDY = Sampling(temperature=0.0)


class Counts:
    def __init__(self):
        self.total = 0

    def tokens(self, model, count):
        self.total += count


class Faulty(nn.Module):
    """A network that fails while `broken` is set."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.switch = {}

    def __call__(self, *args, **kwargs):
        if self.switch.get("broken"):
            raise RuntimeError("out of luck")
        return self.inner(*args, **kwargs)

    @property
    def layers(self):
        return self.inner.layers

    def make_cache(self):
        return self.inner.make_cache()


class Bench:
    """A running thread, its switch, and one event queue per request."""

    def __init__(self):
        self.counts = Counts()
        self.networks = []
        pulse = Pulse(time.monotonic())
        self.runner = Runner(
            {"m": "random://tiny"}, LIMITS, clock=SystemClock(), pulse=pulse, observer=self.counts, load=self.load
        )
        self.pulse = pulse

    def load(self, name, source):
        model = load_model(name, source)
        network = Faulty(model.network)
        self.networks.append(network)
        return dataclasses.replace(model, network=network)

    def ask(self, name, *, max_tokens=5, constraint=None):
        prompt = self.runner.models["m"].codec.encode([{"role": "user", "content": name * 20}])
        events = queue.SimpleQueue()
        self.runner.submit(
            Work(name, "m", prompt.tokens, 0, "", max_tokens, GREEDY, constraint=constraint), events.put
        )
        return events

    def endless(self, name):
        grammar = self.runner.models["m"].grammars.compile({"type": "string", "minLength": 20_000})
        return self.ask(name, max_tokens=20_000, constraint=grammar)

    def wait_for(self, is_true):
        deadline = time.monotonic() + 20
        while not is_true():
            assert time.monotonic() < deadline, self.runner.status
            time.sleep(0.01)


def last(events):
    while isinstance(event := events.get(timeout=20), TextDelta):
        pass
    return event


@pytest.fixture
def bench():
    it = Bench()
    it.runner.start()
    it.wait_for(lambda: it.runner.status.state != "loading")
    yield it
    assert it.runner.stop(20)


def test_an_answer_ends_with_its_figures(bench):
    event = last(bench.ask("a"))
    assert isinstance(event, Finished)
    assert 1 <= event.completion_tokens <= 5
    assert event.timings.tokens_per_second > 0
    bench.wait_for(lambda: not bench.pulse.is_busy)
    assert bench.pulse.generated_tokens >= bench.counts.total == event.completion_tokens


def test_a_cancelled_request_makes_room_for_the_next(bench):
    long = [bench.endless(name) for name in "ab"]
    for events in long:
        assert isinstance(events.get(timeout=20), TextDelta)
    waiting = bench.ask("c")
    bench.wait_for(lambda: bench.runner.status.waiting == 1)
    bench.runner.cancel("a")
    assert isinstance(last(waiting), Finished)
    bench.runner.cancel("b")
    bench.wait_for(lambda: bench.runner.status.running == 0)


def test_a_fault_fails_who_is_in_the_batch_and_the_next_is_served(bench):
    events = bench.endless("a")
    assert isinstance(events.get(timeout=20), TextDelta)
    bench.networks[0].switch["broken"] = True
    event = last(events)
    bench.networks[0].switch["broken"] = False
    assert event == Failed("The engine failed while it generated this answer; try again")
    assert isinstance(last(bench.ask("b")), Finished)
    assert bench.runner.status.state == "ready"


def test_faults_without_end_are_the_end_of_the_thread(bench):
    bench.networks[0].switch["broken"] = True
    answers = [bench.ask(name) for name in "abcdefgh"]
    assert {type(last(events)) for events in answers} == {Failed}
    bench.wait_for(lambda: bench.runner.status.state == "dead")
    assert "in a row" in bench.runner.status.message


def test_stopping_answers_everybody(bench):
    events = [bench.endless(name) for name in "abc"]
    bench.wait_for(lambda: bench.runner.status.running == 2)
    assert bench.runner.stop(20)
    assert {last(each).code for each in events} == {"server_shutting_down"}
