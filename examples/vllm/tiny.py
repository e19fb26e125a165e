"""A Llama of two layers with random weights, and a tokenizer whose tokens are the ASCII letters."""

from __future__ import annotations

import json
import string
import sys
from pathlib import Path
from typing import Any

CONTEXT = 16_384
_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "float32",
    "hidden_act": "silu",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,  # so that it ends where max_tokens or stop say
}
_TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "

# The weights are made when the engine starts (load_format="dummy").
ENGINE_ARGS: dict[str, Any] = {
    "load_format": "dummy",
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": CONTEXT,
    "max_num_seqs": 4,
    "max_num_batched_tokens": 512,  # a prompt of 8,000 tokens takes 16 steps
    "block_size": 32,
}
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # binding fails where cores are shared
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
}


def build(folder: Path) -> Path:
    """Write it, and return the folder."""
    from tokenizers import Tokenizer, decoders, models  # noqa: PLC0415 - in vLLM's environment only

    folder.mkdir(parents=True, exist_ok=True)
    letters = [letter for letter in string.printable if letter not in "\r\x0b\x0c"]
    vocabulary = {letter: number for number, letter in enumerate(["<unk>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": _TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({**_CONFIG, "vocab_size": len(vocabulary)}))
    return folder


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
