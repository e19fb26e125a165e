"""Triton's client as far as a model class sees it.

As the real one: it is made in an event loop, its iterator is no generator and cannot be closed, and
a call whose awaited read is cancelled is cancelled, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import engine


class InferenceServerClient:
    def __init__(self, url: str) -> None:
        self.url = url
        anyio.get_current_task()  # there must be a loop

    def stream_infer(self, inputs_iterator: AsyncIterator[dict[str, Any]]) -> ResponseIterator:
        return ResponseIterator(inputs_iterator)


class ResponseIterator:
    def __init__(self, inputs: AsyncIterator[dict[str, Any]]) -> None:
        self._inputs = inputs
        self._job: engine.Job | None = None

    def __aiter__(self) -> ResponseIterator:
        return self

    async def __anext__(self) -> tuple[str, None]:
        if self._job is None:
            request = await anext(self._inputs)
            self._job = engine.start(request["inputs"])
            self._words = self._job.words()
        try:
            return await anext(self._words), None
        except anyio.get_cancelled_exc_class():
            self._job.stop()
            raise

    def cancel(self) -> bool:
        if self._job is not None:
            self._job.stop()
        return True
