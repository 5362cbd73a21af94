"""What `espalier benchmark` does, without its terminal: from options or a file to settings, from settings to a folder.

The library of benchmarks is an extra of its own; without it a sentence says what to install.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from espalier_api.benchmarkjob import BenchmarkJobSpec, Target
from espalier_api.benchmarkload import Load, Synthetic
from espalier_api.benchmarktasks import (
    JUDGE_ROLE,
    AccuracySettings,
    AskSettings,
    BenchmarkSettings,
    DatasetSettings,
    PackSettings,
    target_role,
)
from espalier_api.common import Source
from espalier_api.modelref import ServerRef
from espalier_kit.digest import value_digest
from espalier_kit.errors import Misconfigured, NotFound, Permanent
from espalier_kit.execution import ModelEndpoint

if TYPE_CHECKING:
    from espalier_benchmark.local import FolderArtifacts
    from espalier_benchmark.verdict import Decision

_STORE = ".artifacts"
_UNSEEN = "here only targets[].endpoint can be measured: apply the file to a cluster, or name the server's address"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a person asked for on the command line."""

    file: Path | None = None
    targets: tuple[str, ...] = ()
    model: str = ""
    rate: float | None = None
    concurrency: int | None = None
    requests: int | None = None
    duration: int | None = None
    prompt_tokens: int = 128
    output_tokens: int = 128
    packs: tuple[str, ...] = ()
    items: int | None = None
    dataset: Path | None = None
    api_key_file: Path | None = None
    ca: Path | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """Settings, the servers they are about, and the files they refer to by digest."""

    settings: BenchmarkSettings
    servers: tuple[ModelEndpoint, ...]
    files: tuple[bytes, ...]


async def measure(
    wish: Wish, folder: Path, *, cache: Path | None, told: Callable[[str, float, str], None]
) -> dict[str, Any]:
    """Run, write every file of the report into the folder, and return its figures. Raises the errors of the kit."""
    local = _library("local")
    measured, place = await asyncio.to_thread(_laid_out, wish, folder)
    store: FolderArtifacts = local.FolderArtifacts(folder / _STORE)
    for content in measured.files:
        await store.put(content)
    uid = value_digest({"settings": measured.settings.wire(), "folder": place})
    job = local.LocalRun(store, measured.servers, uid, told, cache=cache)
    value = await job.run(measured.settings)
    for file in value.files:
        (folder / file.name).write_bytes(await store.get(file.uri.rpartition("/")[2]))
    return read_report(folder)


def _laid_out(wish: Wish, folder: Path) -> tuple[Measured, str]:
    measured = from_file(wish) if wish.file else from_options(wish)
    folder.mkdir(parents=True, exist_ok=True)
    return measured, str(folder.resolve())


def decide(baseline: Path, candidate: Path, *, metrics: tuple[str, ...], margin: float, alpha: float) -> Decision:
    """Compare two folders; one folder with two targets is compared with itself. Raises the errors of the kit."""
    verdict, rules = _library("verdict"), _library("compare").Rules(margin=margin, alpha=alpha)
    is_one = baseline.resolve() == candidate.resolve()
    sides = [_side(folder, number if is_one else 0) for number, folder in enumerate((baseline, candidate))]
    found: Decision = verdict.decide(*sides, metrics=metrics, rules=rules, is_one_run=is_one)
    return found


def read_report(folder: Path) -> dict[str, Any]:
    """The figures in a folder. Raises `NotFound` or `Permanent`."""
    path = folder / "report.json"
    if not path.is_file():
        raise NotFound(f"{folder} holds no report.json: give a folder that `espalier benchmark` wrote")
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise Permanent(f"{path} is no report: {error}") from error
    return found


def from_options(wish: Wish) -> Measured:
    """A job of one or two endpoints. Raises `Misconfigured` where too little is said."""
    if not 1 <= len(wish.targets) <= 2:
        raise Misconfigured("name one --target URL, or two to run in turns; or give a BenchmarkJob's file")
    if not wish.model:
        raise Misconfigured("say which model the servers shall answer with: --model NAME")
    load = _load(wish)
    if load is None and not wish.packs:
        raise Misconfigured("say what to do: --rate or --concurrency with --requests or --duration, or --pack NAME")
    files = [] if wish.dataset is None else [wish.dataset.read_bytes()]
    packs = [_pack(each, wish.items, files) for each in wish.packs]
    targets = tuple(
        AskSettings(
            role=target_role(number), name=f"target-{number}", max_tokens=max(16, wish.output_tokens), temperature=0.0,
            seed=wish.seed,
        )
        for number in range(len(wish.targets))
    )  # fmt: skip
    synthetic = Synthetic(prompt_tokens=wish.prompt_tokens, output_tokens=wish.output_tokens)
    settings = BenchmarkSettings(
        job="benchmark",
        targets=targets,
        load=load,
        dataset=DatasetSettings(file=_digest(files[0])) if wish.dataset else DatasetSettings(synthetic=synthetic),
        accuracy=AccuracySettings(packs=tuple(packs)) if packs else None,
    )
    servers = tuple(_server(wish, number, url, wish.model) for number, url in enumerate(wish.targets))
    return Measured(settings, servers, tuple(files))


def from_file(wish: Wish) -> Measured:
    """A BenchmarkJob's spec as the operator would hand it over. Raises `Misconfigured` for what only a cluster can."""
    assert wish.file is not None
    name, spec = _spec(wish.file)
    if spec.execution is not None and spec.execution.sandbox in ("container", "gvisor"):
        raise Misconfigured(
            f"execution.sandbox {spec.execution.sandbox} needs a pod: leave it out, answers run under bubblewrap here"
        )
    servers = [_endpoint(wish, target, target_role(number)) for number, target in enumerate(spec.targets)]
    accuracy, packs = spec.accuracy, tuple[PackSettings, ...]()
    if accuracy is not None:
        packs = tuple(
            PackSettings(name=p.name, file=_artifact(p.file), items=p.items, seed=p.seed) for p in accuracy.packs
        )
        if accuracy.judge is not None:
            servers.append(_endpoint(wish, accuracy.judge, JUDGE_ROLE))
    settings = BenchmarkSettings(
        job=name,
        targets=tuple(_ask(target_role(n), each.name or f"target-{n}", each) for n, each in enumerate(spec.targets)),
        load=spec.load,
        trace=_artifact(spec.load.trace.source) if spec.load and spec.load.trace else None,
        dataset=_dataset(spec),
        accuracy=None if accuracy is None else AccuracySettings(
            packs=packs, evaluators=accuracy.evaluators, texts=_artifact(accuracy.texts),
            judge=_ask(JUDGE_ROLE, JUDGE_ROLE, accuracy.judge) if accuracy.judge else None,
            concurrency=accuracy.concurrency,
        ),
        slo=spec.slo,
        limits=spec.limits,
    )  # fmt: skip
    return Measured(settings, tuple(servers), ())


def _spec(path: Path) -> tuple[str, BenchmarkJobSpec]:
    try:
        document = yaml.safe_load(path.read_text())
        if not isinstance(document, dict) or document.get("kind") != "BenchmarkJob":
            raise Misconfigured(f"{path} is no BenchmarkJob")
        name = str((document.get("metadata") or {}).get("name") or path.stem)
        return name, BenchmarkJobSpec.model_validate(document.get("spec") or {})
    except yaml.YAMLError as error:
        raise Misconfigured(f"{path} is no YAML of one object: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Misconfigured(f"{path}: spec.{where}: {first['msg']}") from error


def _load(wish: Wish) -> Load | None:
    if wish.rate is None and wish.concurrency is None:
        return None
    if wish.rate is not None and wish.concurrency is not None:
        raise Misconfigured("--rate and --concurrency exclude each other: take one")
    if wish.requests is None and wish.duration is None:
        raise Misconfigured("say how long the run is: --requests N, --duration SECONDS, or both")
    pattern = {"pattern": "poisson", "rate": wish.rate} if wish.rate else {"pattern": "concurrency"}
    try:
        return Load.model_validate(
            {**pattern, "concurrency": wish.concurrency, "requests": wish.requests, "durationSeconds": wish.duration,
             "seed": wish.seed}
        )  # fmt: skip
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Misconfigured(f"{first['loc'][-1]}: {first['msg']}") from error


def _pack(text: str, items: int | None, files: list[bytes]) -> PackSettings:
    name, _, path = text.partition("=")
    if path:
        files.append(Path(path).read_bytes())
    return PackSettings(name=name, file=_digest(files[-1]) if path else None, items=items)


def _dataset(spec: BenchmarkJobSpec) -> DatasetSettings:
    dataset = spec.dataset
    if dataset is None:
        return DatasetSettings(synthetic=Synthetic())
    if dataset.file is not None or dataset.pack is not None:
        return DatasetSettings(file=_artifact(dataset.file), pack=dataset.pack)
    return DatasetSettings(synthetic=dataset.synthetic or Synthetic())


def _artifact(source: Source | None) -> str | None:
    """Sources are in a cluster: here a job brings none."""
    if source is None:
        return None
    raise Misconfigured(
        f"{source.uri} is in a cluster: apply the file there, or use --pack NAME=FILE and --dataset FILE"
    )


def _ask(role: str, name: str, ref: ServerRef | Target) -> AskSettings:
    return AskSettings(
        role=role, name=name, max_tokens=ref.max_tokens, temperature=ref.temperature, seed=ref.seed,
        price=ref.price if isinstance(ref, Target) else None,
    )  # fmt: skip


def _endpoint(wish: Wish, ref: ServerRef, role: str) -> ModelEndpoint:
    if ref.endpoint is None:
        raise Misconfigured(_UNSEEN)
    return _connected(wish, role, ref.endpoint.url, ref.endpoint.model)


def _server(wish: Wish, number: int, url: str, model: str) -> ModelEndpoint:
    return _connected(wish, target_role(number), url.rstrip("/").removesuffix("/v1"), model)


def _connected(wish: Wish, role: str, url: str, model: str) -> ModelEndpoint:
    return ModelEndpoint(
        role, url, model, name=url,
        api_key=wish.api_key_file.read_text().strip() if wish.api_key_file else None,
        ca_pem=wish.ca.read_text() if wish.ca else None,
    )  # fmt: skip


def _side(folder: Path, number: int) -> Any:
    """One target's run: the first one's, or of the same folder the second's."""
    found = read_report(folder)
    settings = BenchmarkSettings.model_validate(found["job"])
    if number >= len(settings.targets):
        raise Misconfigured(f"{folder} has one target only: give two folders", reason="BadComparison")
    raw: Mapping[str, str] = found["raw"]
    contents = {key: (folder / name).read_bytes() for key, name in raw.items()}
    return _library("verdict").side(settings, contents, job=str(folder), target=settings.targets[number].name)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _library(module: str) -> Any:
    try:
        return importlib.import_module(f"espalier_benchmark.{module}")
    except ModuleNotFoundError as error:
        raise Misconfigured(f"benchmarks need {error.name}: pip install 'espalier[benchmark]'") from error
