"""Where a model comes from: an MLX folder, a GGUF file, one inside an installed package, or random weights.

On a machine without Metal all weights become float32: there MLX's quantised and half-precision products are scalar
loops, 10 to 50 times slower than a float32 product through BLAS. With Metal they stay as stored.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import mlx.core as mx
import mlx.nn as nn
import mlx_lm
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from mlx_lm.utils import dequantize_model, load
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from espalier_kit.digest import sha256
from espalier_kit.errors import Misconfigured, NotFound
from espalier_mlx import gguf, tiny
from espalier_mlx.codec import Codec, Message
from espalier_mlx.grammar import Grammars

_QUANTISED_GROUP = 32
"""GGUF's Q4_0, Q4_1 and Q8_0 all scale blocks of 32."""
_UNKNOWN_CONTEXT = 4096


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to generate; `network` belongs to the thread that loaded it."""

    name: str
    network: nn.Module
    codec: Codec
    grammars: Grammars
    context_length: int
    fingerprint: str


def load_model(name: str, source: str) -> LoadedModel:
    """Load one model. Raises `Misconfigured` (or `NotFound`) with a sentence about the source."""
    is_dense = not mx.metal.is_available()
    if source.startswith("random://"):
        network, codec, context = _random(source)
    elif (path := _resolve(source)).is_dir():
        network, codec, context = _folder(path, is_dense=is_dense)
    else:
        network, codec, context = load_gguf(path, is_dense=is_dense)
    network.eval()
    mx.eval(network.parameters())
    vocabulary = int(network(mx.array([[0]])).shape[-1])
    grammars = Grammars(codec.tokenizer, vocabulary=vocabulary, end_tokens=codec.end_tokens)
    return LoadedModel(name, network, codec, grammars, context, _fingerprint(source))


def _resolve(source: str) -> Path:
    """The file or folder that a source names. Raises `NotFound`, or `Misconfigured` for a form that is not known."""
    if source.startswith("package://"):
        return _inside_package(source)
    if "://" in source:
        raise Misconfigured(
            f"model source {source!r}: write a path, package://MODULE/FILE or random://tiny", reason="ModelNotFound"
        )
    path = Path(source)
    if not path.exists():
        raise NotFound(f"model source {source!r}: no such file or folder on this node", reason="ModelNotFound")
    if path.is_file() and path.suffix != ".gguf":
        raise Misconfigured(f"model source {source!r}: a file must end in .gguf", reason="ModelUnsupported")
    return path


def _inside_package(source: str) -> Path:
    parts = urlsplit(source)
    spec = importlib.util.find_spec(parts.netloc) if parts.netloc.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        message = f"model source {source!r}: package {parts.netloc!r} is not installed here"
        raise NotFound(message, reason="ModelNotFound")
    root = Path(next(iter(spec.submodule_search_locations))).resolve()
    path = (root / parts.path.lstrip("/")).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        raise NotFound(f"model source {source!r}: the package has no such file", reason="ModelNotFound")
    return path


def _random(source: str) -> tuple[nn.Module, Codec, int]:
    parts = urlsplit(source)
    seed = parse_qs(parts.query).get("seed", ["0"])[0]
    if parts.netloc != "tiny" or not seed.isdigit():
        message = f"model source {source!r}: write random://tiny or random://tiny?seed=N"
        raise Misconfigured(message, reason="ModelNotFound")
    tokenizer = tiny.tokenizer()
    mx.random.seed(int(seed))
    network = llama.Model(llama.ModelArgs.from_dict(tiny.config(tokenizer.get_vocab_size())))
    wrapped = _wrapped(tokenizer, template=tiny.TEMPLATE, end=tiny.END)
    end = frozenset({tokenizer.encode(tiny.END).ids[0]})
    return network, _codec(wrapped, end), tiny.CONTEXT


def load_gguf(path: Path, *, is_dense: bool) -> tuple[nn.Module, Codec, int]:
    """Network, codec and context length of a GGUF file; `is_dense`: float32 instead of the stored blocks."""
    tensors, metadata = gguf.read(path)
    tokenizer = gguf.tokenizer_of(metadata)
    config = gguf.config_of(metadata, has_output="output.weight" in tensors)
    weights = gguf.weights_of(tensors, config)
    network = llama.Model(llama.ModelArgs.from_dict(config))
    if is_dense:
        weights = dense(weights)
    else:
        nn.quantize(network, class_predicate=partial(_quantisation, weights))
    network.load_weights(list(weights.items()))
    texts = metadata["tokenizer.ggml.tokens"]
    wrapped = _wrapped(
        tokenizer, template=metadata.get("tokenizer.chat_template"),
        end=_text_at(texts, metadata.get("tokenizer.ggml.eos_token_id")),
        begin=_text_at(texts, metadata.get("tokenizer.ggml.bos_token_id")),
    )
    return network, _codec(wrapped, gguf.end_tokens_of(metadata)), int(config["max_position_embeddings"])


def dense(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """Quantised triples (weight, scales, biases) and half floats as float32; evaluated one by one to bound memory."""
    out: dict[str, mx.array] = {}
    for name in [n for n in weights if n.endswith(".weight")]:
        weight = weights.pop(name)
        scales = weights.pop(name.replace(".weight", ".scales"), None)
        biases = weights.pop(name.replace(".weight", ".biases"), None)
        if scales is not None and biases is not None:
            bits = _bits(weight, scales)
            weight = mx.dequantize(
                weight, scales.astype(mx.float32), biases.astype(mx.float32), group_size=_QUANTISED_GROUP, bits=bits
            )
        out[name] = weight.astype(mx.float32)
        mx.eval(out[name])
    return {**out, **weights}


def _quantisation(weights: dict[str, mx.array], path: str, module: nn.Module) -> bool | dict[str, int]:
    """Which layers to quantise, and how, so that stored triples fit: mlx asks for each layer."""
    scales = weights.get(f"{path}.scales")
    if scales is None:
        return False
    return {"group_size": _QUANTISED_GROUP, "bits": _bits(weights[f"{path}.weight"], scales)}


def _bits(weight: mx.array, scales: mx.array) -> int:
    """A row of n values takes n·bits/32 words and n/32 scales, so words per scale is the number of bits."""
    return int(weight.shape[-1] // scales.shape[-1])


def _folder(path: Path, *, is_dense: bool) -> tuple[nn.Module, Codec, int]:
    try:
        network, wrapper, config = load(str(path), return_config=True)
    except (FileNotFoundError, ValueError, KeyError) as error:
        message = f"{path}: not a model folder that mlx-lm can load: {error}"
        raise Misconfigured(message, reason="ModelUnreadable") from error
    if is_dense:
        network = dequantize_model(network) if "quantization" in config else network
        network.set_dtype(mx.float32)
    context = int(config.get("max_position_embeddings") or _UNKNOWN_CONTEXT)
    return network, _codec(wrapper, frozenset(wrapper.eos_token_ids)), context


def _codec(wrapped: Any, end_tokens: frozenset[int]) -> Codec:
    """`wrapped` is a transformers tokenizer or mlx-lm's wrapper of one; both have the template and a fast backend."""
    backend = getattr(wrapped, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise Misconfigured("the model's tokenizer has no fast form (tokenizer.json)", reason="ModelUnsupported")
    if not wrapped.chat_template:
        raise Misconfigured("the model has no chat template; take its instruct form", reason="ModelUnsupported")

    def render(messages: Sequence[Message], opened: bool) -> str:
        return str(wrapped.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=opened))

    return Codec(backend, render, end_tokens)


def _wrapped(tokenizer: Tokenizer, *, template: str | None, end: str | None, begin: str | None = None) -> Any:
    """A transformers tokenizer: it renders chat templates in the sandbox that they are written for."""
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers types only some classes
        tokenizer_object=tokenizer, chat_template=template, eos_token=end, bos_token=begin,
    )


def _text_at(texts: list[str], index: int | None) -> str | None:
    return None if index is None else texts[index]


def _fingerprint(source: str) -> str:
    """Changes when source or library do: equal seeds give equal texts only under one fingerprint."""
    return "fp_" + sha256(f"{source}|{mlx_lm.__version__}".encode())[:12]


def parameter_count(network: nn.Module) -> int:
    """Weights in the network, for the log line."""
    return sum(int(array.size) for _, array in tree_flatten(network.parameters()))
