"""The tiny model of the examples for vLLM, in eight layers, with its random weights in a file."""

from __future__ import annotations

import sys
from pathlib import Path

from examples.vllm import tiny

CONTEXT = tiny.CONTEXT
LAYERS = 8


def build(folder: Path) -> Path:
    """Write it, and return the folder."""
    import torch  # noqa: PLC0415 - in the engines' environment only
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    config = AutoConfig.from_pretrained(tiny.build(folder), num_hidden_layers=LAYERS)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
