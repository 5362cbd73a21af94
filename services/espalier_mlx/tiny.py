"""`random://tiny`: a model of random weights for tests. Its words mean nothing; under a schema its JSON is valid.

Everything is built in code: the configuration of a two-layer llama and a byte-level tokenizer trained on a few lines.
"""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

CONTEXT = 32768
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
END = "<|im_end|>"
_SPECIAL = ("<|im_start|>", END)
_VOCABULARY = 512
_LINES = (
    "The student wrote a function that returns the sum of the squares of the first numbers.",
    "You are a teacher. Read the answer of the student, then give points and a short comment with evidence.",
    "def squares(n): return [i ** 2 for i in range(1, n + 1)] # raise ValueError if n is less than one",
    "The answer is correct and complete, but the explanation is missing; the code does not handle the empty list.",
    'import numpy as np; print({"points": 3, "comment": "good work", "evidence": "line 4"})',
)


def tokenizer() -> Tokenizer:
    """All 256 bytes, the two markers, and the merges that a few English and Python lines give."""
    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    built.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY, show_progress=False, min_frequency=1,
        special_tokens=[AddedToken(text, special=True) for text in _SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    built.train_from_iterator(_LINES, trainer)
    return built


def config(vocabulary: int) -> dict[str, Any]:
    """mlx-lm's llama configuration: two layers of 64."""
    return {
        "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": vocabulary,
        "max_position_embeddings": CONTEXT, "rope_theta": 10000.0, "tie_word_embeddings": True,
    }
