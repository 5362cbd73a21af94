"""Anything may happen in any order: submissions, results, retries, crashes, a stuck disk, workers that vanish and come
back, a leader that was replaced. In memory, so that there is time for many lives."""

from __future__ import annotations

from hypothesis import settings

from tests.support.coordinator_life import Life

Life.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
