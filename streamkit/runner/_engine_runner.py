"""`EngineRunner`: one engine, many requests, and what each of them is doing at any moment."""

from __future__ import annotations

from typing import Any

from streamkit._core import CancelToken, current_token
from streamkit.engines import Engine

from ._call import Call
from ._case import OnClosed
from ._runner import Runner


class EngineRunner(Runner):
    """Requests to one engine.

    ::

        with runner.accept(token=token) as call:
            call.admit(GenerationRequest(prompt="…"))
            async for text in call.stream():
                ...
            await call.complete()

    Args:
        engine: What generates; :meth:`aclose` closes it.
        **options: Those of :class:`Runner`.
    """

    __slots__ = ("engine",)

    def __init__(self, engine: Engine, **options: Any) -> None:
        super().__init__(engine, **options)
        self.engine: Engine = engine

    def accept(
        self,
        *,
        request_id: str | None = None,
        token: CancelToken | None = None,
        on_closed: OnClosed | None = None,
    ) -> Call:
        """A request has arrived: open its books.

        Args:
            request_id: Its id if that is valid and free, else it gets a new one.
            token: The cancel token it hangs on; None takes ``current_token()``.
            on_closed: Called once with its account, when its books were closed or it was refused.
        """
        free_id = self.in_flight.choose_id(request_id)
        call = Call(self, free_id, current_token() if token is None else token, on_closed)
        if self.request_timeout is not None:
            call.source.cancel_after(self.request_timeout)
        return call

    async def close_served(self) -> None:
        """Close the engine."""
        await self.engine.aclose()
