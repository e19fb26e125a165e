"""A random llama that is written on the spot: whole models are a download, and say no more here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

CONTEXT = 16_384
TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
SPECIAL = ("<unk>", "<s>", "</s>")
SPACE = "\u2581"  # what a space is before it is looked up; else it would be three bytes
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LOUD = 8.0  # how sure it is of what it may say, and of what it may not


def build(
    path: Path, *, layers: int = 2, width: int = 64, wide: bool = False, template: bool = True
) -> Path:
    """Write a llama whose tokens are bytes, in 32-bit floats.

    Args:
        path: Where.
        layers: How many layers; with ``width`` they decide how long a prefill takes.
        width: Numbers for each token, a multiple of 64.
        wide: Whether it says any byte, or only printable ASCII. It never says its end.
        template: Whether it comes with a chat template.
    """
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(2 * width)
    writer.add_head_count(width // 32)
    writer.add_head_count_kv(width // 32)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(32)
    _add_tokens(writer, template=template)
    for name, tensor in _tensors(layers, width, wide=wide).items():
        writer.add_tensor(name, tensor.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokens(writer: gguf.GGUFWriter, *, template: bool) -> None:
    tokens = [*SPECIAL, *BYTES, SPACE]
    kinds = [
        gguf.TokenType.UNKNOWN,
        *2 * [gguf.TokenType.CONTROL],
        *256 * [gguf.TokenType.BYTE],
        gguf.TokenType.NORMAL,
    ]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    if template:
        writer.add_chat_template(TEMPLATE)


def _tensors(layers: int, width: int, *, wide: bool) -> dict[str, Any]:
    random = np.random.default_rng(1)
    vocabulary = len(SPECIAL) + len(BYTES) + 1

    def weights(rows: int, columns: int) -> Any:
        return random.normal(0, columns**-0.5, (rows, columns))

    def deaf(tensor: Any) -> Any:
        tensor[0] = 0  # leaves the first number of the residual stream as it was embedded
        return tensor

    tensors = {
        "token_embd.weight": weights(vocabulary, width),
        "output_norm.weight": np.ones(width),
        "output.weight": 2 * weights(vocabulary, width),
    }
    # The first number is the same for each token, so that the last layer can forbid some for good.
    tensors["token_embd.weight"][:, 0] = 4
    tensors["output.weight"][:, 0] = -LOUD
    said = range(256) if wide else range(32, 127)
    tensors["output.weight"][[len(SPECIAL) + byte for byte in said], 0] = LOUD
    for layer in range(layers):
        block = f"blk.{layer}"
        tensors |= {
            f"{block}.attn_norm.weight": np.ones(width),
            f"{block}.attn_q.weight": weights(width, width),
            f"{block}.attn_k.weight": weights(width, width),
            f"{block}.attn_v.weight": weights(width, width),
            f"{block}.attn_output.weight": deaf(weights(width, width)),
            f"{block}.ffn_norm.weight": np.ones(width),
            f"{block}.ffn_gate.weight": weights(2 * width, width),
            f"{block}.ffn_up.weight": weights(2 * width, width),
            f"{block}.ffn_down.weight": deaf(weights(width, 2 * width)),
        }
    return tensors


if __name__ == "__main__":  # a model to try things with
    import sys

    build(Path(sys.argv[1]))
