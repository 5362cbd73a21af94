"""Commands that share the options which say whom they ask: a cluster and its coordinator, or a plain coordinator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar

import typer

from espalier_cli.coordinator import Address, Authority, KeyFile, Target
from espalier_cli.options import SYSTEM_NAMESPACE, Kubeconfig, Namespace, System, Where
from espalier_cli.terminal import run

Work = TypeVar("Work", bound=Callable[..., Coroutine[Any, Any, None]])


def _target(
    namespace: Namespace = "default", kubeconfig: Kubeconfig = None, system: System = SYSTEM_NAMESPACE,
    coordinator: Address = None, key_file: KeyFile = None, ca_file: Authority = None,
) -> Target:
    return Target(Where(kubeconfig, namespace, system), coordinator, key_file, ca_file)


def command(app: typer.Typer, name: str | None = None) -> Callable[[Work], Work]:
    """Make `async work(target, …)` a command of `app`: its own parameters, then the shared options."""

    def register(work: Work) -> Work:
        _, *own = inspect.signature(work, eval_str=True).parameters.values()
        shared = inspect.signature(_target, eval_str=True).parameters

        @wraps(work)
        def call(**given: Any) -> None:
            target = _target(**{option: given.pop(option) for option in shared})
            run(work(target, **given))

        call.__signature__ = inspect.Signature([*own, *shared.values()])  # type: ignore[attr-defined] # typer reads it
        app.command(name)(call)
        return work

    return register
