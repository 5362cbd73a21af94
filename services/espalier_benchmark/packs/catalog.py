"""All packs by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from espalier_benchmark.packs.bfcl import FunctionCalls
from espalier_benchmark.packs.files import gsm8k, mmlu
from espalier_benchmark.packs.human_eval import HumanEval
from espalier_benchmark.packs.ifeval import ifeval
from espalier_benchmark.packs.model import Pack
from espalier_benchmark.packs.reasoning import DEFAULT_ITEMS, ReasoningGym
from espalier_benchmark.packs.sandboxed import sandbox_of
from espalier_grading.sandbox import Sandbox
from espalier_kit.errors import Misconfigured

_FROM_FILES: Mapping[str, Callable[[bytes], Pack]] = {"gsm8k": gsm8k, "mmlu": mmlu, "ifeval": ifeval}
NAMES = ("reasoning-gym:<task>", "humaneval", "bfcl:simple", "bfcl:parallel", *_FROM_FILES)


def open_pack(
    name: str, *, file: bytes | None = None, items: int | None = None, seed: int = 0, sandbox: Sandbox | None = None
) -> Pack:
    """The pack of that name. Raises `Misconfigured`: UnknownPack, BadDataset, PackNotInstalled, PackChanged."""
    confined = sandbox or sandbox_of("bubblewrap")
    kind, _, detail = name.partition(":")
    if kind in _FROM_FILES and not detail:
        if file is None:
            raise Misconfigured(
                f"pack {name} is not part of Espalier: give its questions as a file (accuracy.packs[].file)",
                reason="BadDataset",
            )
        return _FROM_FILES[kind](file)
    if file is not None:
        raise Misconfigured(f"pack {name} brings its own questions: remove its file", reason="BadDataset")
    if kind == "reasoning-gym" and detail:
        return ReasoningGym(detail, seed=seed, items=items or DEFAULT_ITEMS, sandbox=confined)
    if name == "humaneval":
        return HumanEval(confined)
    if kind == "bfcl" and detail in ("simple", "parallel"):
        return FunctionCalls("simple" if detail == "simple" else "parallel")
    raise Misconfigured(f"no pack {name!r}; there are {', '.join(NAMES)}", reason="UnknownPack")
