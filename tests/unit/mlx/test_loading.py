"""Models from random numbers, from folders, and sources that are none."""

import json

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import llama

from espalier_kit.errors import Misconfigured, NotFound
from espalier_mlx import tiny
from espalier_mlx.loading import load_model

TOKENS = mx.array([[5, 6, 7, 8]])


def logits(model):
    return model.network(TOKENS)


def write_folder(path, *, bits=None):
    """An MLX model folder as `mlx_lm.convert` writes it; returns the logits it must give."""
    tokenizer = tiny.tokenizer()
    config = {**tiny.config(tokenizer.get_vocab_size()), "eos_token_id": 1}
    mx.random.seed(3)
    network = llama.Model(llama.ModelArgs.from_dict(config))
    if bits:
        nn.quantize(network, group_size=32, bits=bits)
        config["quantization"] = {"group_size": 32, "bits": bits}
    mx.save_safetensors(str(path / "model.safetensors"), dict(tree_flatten(network.parameters())))
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "config.json").write_text(json.dumps(config))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": tiny.TEMPLATE, "eos_token": tiny.END}
    (path / "tokenizer_config.json").write_text(json.dumps(about))
    return network(TOKENS)


def test_random_weights_are_the_same_for_the_same_seed():
    one, same, other = (load_model("m", f"random://tiny?seed={seed}") for seed in (1, 1, 2))
    assert mx.array_equal(logits(one), logits(same))
    assert not mx.array_equal(logits(one), logits(other))
    assert one.fingerprint == same.fingerprint != other.fingerprint


@pytest.mark.parametrize("bits", [None, 4], ids=["plain", "quantised"])
def test_an_mlx_folder_gives_the_logits_it_was_saved_with(tmp_path, bits):
    expected = write_folder(tmp_path, bits=bits)
    model = load_model("m", str(tmp_path))
    assert mx.allclose(logits(model), expected, atol=1e-4)
    assert model.codec.end_tokens == frozenset({1})
    assert model.context_length == tiny.CONTEXT
    if not mx.metal.is_available():
        assert {array.dtype for _, array in tree_flatten(model.network.parameters())} == {mx.float32}


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ("/nowhere", NotFound, "no such file or folder"),
        ("https://example.org/model", Misconfigured, "write a path"),
        ("random://huge", Misconfigured, "random://tiny"),
        ("random://tiny?seed=x", Misconfigured, "seed=N"),
        ("package://no_such_package/x.gguf", NotFound, "not installed"),
        ("package://os.path/x.gguf", NotFound, "not installed"),
        ("package://espalier_mlx/../../pyproject.toml", NotFound, "no such file"),
    ],
    ids=["path", "url", "random", "seed", "package", "dotted", "escape"],
)
def test_sources_that_are_none(source, error, says):
    with pytest.raises(error, match=says):
        load_model("m", source)


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(Misconfigured, match="not a model folder"):
        load_model("m", str(tmp_path))


def test_a_file_of_another_kind(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(b"x")
    with pytest.raises(Misconfigured, match=r"must end in \.gguf"):
        load_model("m", str(path))
