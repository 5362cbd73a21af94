"""GGUF names, rotary rows, and quantised blocks."""

import mlx.core as mx
import numpy as np
import pytest

from espalier_kit.errors import Misconfigured
from espalier_mlx import gguf
from espalier_mlx.loading import dense


def as_llama_cpp_stores(rows, heads):
    """llama.cpp's own permutation: (heads, 2, half) → (heads, half, 2)."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


@pytest.mark.parametrize(("heads", "size"), [(1, 4), (3, 8), (9, 64)])
def test_rotary_order_undoes_the_permutation(heads, size):
    rows = np.arange(heads * size * 3).reshape(heads * size, 3)
    stored = as_llama_cpp_stores(rows, heads)
    assert np.array_equal(stored[gguf.rotary_order(heads * size, heads)], rows)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blk.3.attn_q.weight", "model.layers.3.self_attn.q_proj.weight"),
        ("blk.0.ffn_down.scales", "model.layers.0.mlp.down_proj.scales"),
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("output_norm.weight", "model.norm.weight"),
        ("output.weight", "lm_head.weight"),
        ("rope_freqs.weight", None),
    ],
)
def test_rename(name, expected):
    assert gguf.rename(name) == expected


@pytest.mark.parametrize("bits", [4, 8])
def test_dense_restores_quantised_blocks_whatever_their_bits(bits):
    weight = mx.random.normal((4, 64), key=mx.random.key(1))
    packed, scales, biases = mx.quantize(weight, group_size=32, bits=bits)
    triple = {"x.weight": packed, "x.scales": scales.astype(mx.float16), "x.biases": biases.astype(mx.float16)}
    restored = dense({**triple, "n.weight": mx.ones((4,), dtype=mx.float16)})
    assert set(restored) == {"x.weight", "n.weight"}
    assert restored["n.weight"].dtype == mx.float32
    assert float(mx.abs(restored["x.weight"] - weight).max()) < 6 / 2**bits


def metadata(**changes):
    base = {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": ["<|im_start|>", "<|im_end|>", "1", "2", "a", "b", "ab"],
        "tokenizer.ggml.token_type": [3, 3, 1, 1, 1, 1, 1], "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.eos_token_id": 1,
    }
    return {**base, **changes}


def test_the_tokenizer_knows_merges_digits_and_control_tokens():
    tokenizer = gguf.tokenizer_of(metadata())
    assert tokenizer.encode("ab12<|im_end|>").ids == [6, 2, 3, 1]
    assert gguf.end_tokens_of(metadata()) == frozenset({1})


@pytest.mark.parametrize("changes", [{"tokenizer.ggml.model": "llama"}, {"tokenizer.ggml.pre": "odd"}])
def test_unknown_tokenizers_are_refused(changes):
    with pytest.raises(Misconfigured, match="MLX folder"):
        gguf.tokenizer_of(metadata(**changes))


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(Misconfigured, match=r"x\.gguf"):
        gguf.read(path)
