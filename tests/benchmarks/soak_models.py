"""A model class that breaks what a soak must show: it keeps memory, and alters an answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from benchmarks.soak.model import Model

kept: list[bytearray] = []


class Spoilt(Model):
    """Each request leaves 256 KiB behind, and one in ten answers has another letter."""

    async def predict(self, inputs: dict[str, Any]) -> AsyncIterator[str]:
        kept.append(bytearray(b"x" * 262_144))
        async for word in super().predict(inputs):
            spoils = len(kept) > 20 and len(kept) % 10 == 0
            yield word[:-1] + "x" if spoils else word
