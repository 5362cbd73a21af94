"""GGUF files of llama-shaped models: weights, configuration and tokenizer, all from the one file.

MLX reads Q4_0, Q4_1, Q8_0 and the float types itself. Two things it leaves to us: llama.cpp stores the rows of the
query and key projections in the order of its own rotary embedding, and the tokenizer is a list of metadata.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from espalier_kit.errors import Misconfigured

_NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_CONTROL, _USER_DEFINED = 3, 4
_END_TEXTS = frozenset({"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>"})
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def read(path: Path) -> tuple[dict[str, mx.array], dict[str, Any]]:
    """Tensors under GGUF's names and the metadata as plain Python values. Raises `Misconfigured`."""
    try:
        with _writable(path) as readable:
            loaded: Any = mx.load(str(readable), format="gguf", return_metadata=True)
    except (RuntimeError, ValueError) as error:
        message = f"{path.name}: not a GGUF file that MLX can read: {error}"
        raise Misconfigured(message, reason="ModelUnreadable") from error
    tensors, raw = loaded
    metadata = {key: value.tolist() if isinstance(value, mx.array) else value for key, value in raw.items()}
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise Misconfigured(
            f"{path.name}: architecture {architecture!r}; of GGUF only 'llama' is read, take an MLX folder for others",
            reason="ModelUnsupported",
        )
    return tensors, metadata


@contextmanager
def _writable(path: Path) -> Iterator[Path]:
    """A file that we may write, since MLX opens GGUF files for writing: the file itself, or a copy while it is read."""
    if os.access(path, os.W_OK):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="espalier-gguf-") as folder:
        yield Path(shutil.copyfile(path, Path(folder) / path.name))


def config_of(metadata: Mapping[str, Any], *, has_output: bool) -> dict[str, Any]:
    """mlx-lm's llama configuration. `has_output`: the file has a head of its own instead of tied embeddings."""
    heads = metadata["llama.attention.head_count"]
    return {
        "model_type": "llama",
        "hidden_size": metadata["llama.embedding_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.get("llama.attention.head_count_kv", heads),
        "rms_norm_eps": metadata["llama.attention.layer_norm_rms_epsilon"],
        "vocab_size": metadata.get("llama.vocab_size") or len(metadata["tokenizer.ggml.tokens"]),
        "max_position_embeddings": metadata["llama.context_length"],
        "rope_theta": metadata.get("llama.rope.freq_base", 10000.0),
        "tie_word_embeddings": not has_output,
    }


def rename(name: str) -> str | None:
    """`blk.3.attn_q.scales` → `model.layers.3.self_attn.q_proj.scales`; None for what the model does not use."""
    parts = name.split(".")
    if parts[0] == "blk" and parts[2] in _NAMES:
        return ".".join(["model.layers", parts[1], _NAMES[parts[2]], parts[3]])
    return f"{_TOP[parts[0]]}.{parts[1]}" if parts[0] in _TOP else None


def rotary_order(rows: int, heads: int) -> list[int]:
    """Row indices that undo llama.cpp's permutation: it interleaves the halves of each head, `[a0 b0 a1 b1 …]`.

    The result takes rows in the order `[a0 a1 … b0 b1 …]` per head, which is what half-split rotary embeddings expect.
    """
    size = rows // heads
    return [head * size + 2 * (i % (size // 2)) + i // (size // 2) for head in range(heads) for i in range(size)]


def weights_of(tensors: dict[str, mx.array], config: Mapping[str, Any]) -> dict[str, mx.array]:
    """Tensors under mlx-lm's names, rotary rows in order. Consumes `tensors`, so memory holds one copy."""
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    weights: dict[str, mx.array] = {}
    for name in list(tensors):
        tensor = tensors.pop(name)
        target = rename(name)
        if target is None:
            continue
        projection = target.split(".")[-2]
        if projection in heads:
            tensor = tensor[mx.array(rotary_order(tensor.shape[0], heads[projection]))]
        weights[target] = tensor
    return weights


def tokenizer_of(metadata: Mapping[str, Any]) -> Tokenizer:
    """The byte-level BPE tokenizer of the file. Raises `Misconfigured` for the kinds that are not read."""
    kind = metadata.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise Misconfigured(
            f"the GGUF tokenizer kind {kind!r} is not read, only 'gpt2' (byte-level BPE); take an MLX folder instead",
            reason="ModelUnsupported",
        )
    texts: list[str] = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={text: i for i, text in enumerate(texts)}, merges=merges))
    tokenizer.pre_tokenizer = _pre_tokenizer(metadata.get("tokenizer.ggml.pre", "default"))
    tokenizer.decoder = decoders.ByteLevel()
    kinds: list[int] = metadata["tokenizer.ggml.token_type"]
    tokenizer.add_tokens([
        AddedToken(text, special=kind == _CONTROL, normalized=False)
        for text, kind in zip(texts, kinds, strict=True) if kind in (_CONTROL, _USER_DEFINED)
    ])
    return tokenizer


def end_tokens_of(metadata: Mapping[str, Any]) -> frozenset[int]:
    """Tokens that end an answer: those named, and well-known control tokens that the file carries."""
    named = {metadata[key] for key in ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id") if key in metadata}
    texts, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    known = {i for i, text in enumerate(texts) if text in _END_TEXTS and kinds[i] == _CONTROL}
    return frozenset(named | known)


def _pre_tokenizer(name: str) -> pre_tokenizers.PreTokenizer:
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    known: dict[str, list[Any]] = {
        "default": [gpt2],
        "gpt-2": [gpt2],
        "smollm": [pre_tokenizers.Digits(individual_digits=True), gpt2],
        "llama-bpe": [pre_tokenizers.Split(Regex(_LLAMA3), "isolated"), bytes_only],
        "qwen2": [pre_tokenizers.Split(Regex(_QWEN2), "isolated"), bytes_only],
    }
    if name not in known:
        raise Misconfigured(
            f"the GGUF pre-tokenizer {name!r} is not known (known: {', '.join(known)}); take an MLX folder instead",
            reason="ModelUnsupported",
        )
    return pre_tokenizers.Sequence(known[name])
