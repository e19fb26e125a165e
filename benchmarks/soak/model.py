"""A model class to be soaked in an engine's place: `--target benchmarks.soak.model:Model`."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import Any

import anyio

STEP = 0.002  # seconds for each word


class Model:
    """Says words that its prompt decides, as many as it is asked for."""

    async def predict(self, inputs: dict[str, Any]) -> AsyncIterator[str]:
        for number in range(inputs["max_tokens"]):
            await anyio.sleep(STEP)
            word = str(zlib.crc32(f"{number} {inputs['prompt']}".encode()) % 1000)
            yield f" {word}" if number else word
