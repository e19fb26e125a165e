"""BentoML: one service, with an API that streams and one that does not."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import bentoml

from benchmarks.apps import source


@bentoml.service(traffic={"timeout": 3_600, "max_concurrency": 100_000}, workers=1)
class Bento:
    @bentoml.api
    async def predict(self, shape: str, row: int, n: int) -> dict[str, Any]:
        if shape == "predict":
            return {"doubled": 2 * n}
        return {"text": await source.CALLS[shape](row, n)}

    @bentoml.api
    async def stream(self, shape: str, row: int, n: int) -> AsyncGenerator[str, None]:
        async for token in source.STREAMS[shape](row, n):
            yield token
