"""`POST /generate`: the plain form for a served engine, as a stream or as one answer."""

from __future__ import annotations

from typing import Any

import anyio
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from streamkit._core import SCOPE_KEY, Reason
from streamkit.asgi import ByteStream, EventStream
from streamkit.engines import Chunk, GenerationRequest
from streamkit.runner import Call, EngineRunner, Output

from ._accept import accepts_events
from ._body import read_model
from ._visit import VISIT_KEY, Visit
from .settings import Settings


class GenerateRequest(BaseModel):
    """The body. What an engine can hold, it says itself; what is too much for any, this says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    n: int = Field(default=1, ge=1, le=128)  # as OpenAI's API has it
    stream: bool = False


class Generate:
    """The route, as an ASGI app: its call lasts until the answer has been sent."""

    __slots__ = ("_runner", "_settings")

    def __init__(self, runner: EngineRunner, settings: Settings) -> None:
        self._runner = runner
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        visit: Visit = scope[VISIT_KEY]
        owner = scope[SCOPE_KEY]
        with self._runner.accept(
            request_id=visit.id, token=owner.token, on_closed=visit.books_closed
        ) as call:
            visit.wait_for_books(call.id)
            try:
                response = await self._answer(Request(scope, receive), call)
                await response(scope, receive, send)
            except HTTPException:
                call.refuse()
                raise
            except anyio.get_cancelled_exc_class():
                # Only a server that shuts down cancels this task; our own cancels end its waits.
                call.cancel(Reason.DRAIN, "the server cancelled the request's task")
                raise
            if owner.response_complete:
                await call.complete()

    async def _answer(self, request: Request, call: Call) -> Response:
        params = await read_model(request, GenerateRequest, self._settings, call.token)
        self._admit(params, call)
        output = call.output
        assert output is not None
        if not params.stream:
            return JSONResponse(_whole(call.id, await call.read(), output))
        if not accepts_events(request.scope):
            return ByteStream(call.stream(), media_type="text/plain; charset=utf-8")
        return EventStream(
            call.stream(),
            heartbeat=self._settings.heartbeat,
            summary=lambda: _summary(call.id, output),
        )

    def _admit(self, params: GenerateRequest, call: Call) -> None:
        limit = self._settings.max_tokens_limit
        if params.max_tokens is not None and params.max_tokens > limit:
            raise HTTPException(400, f"max_tokens: input should be less than or equal to {limit}")
        if params.stream and params.n > 1:
            raise HTTPException(
                400, "n: must be 1 when stream is true: plain text cannot tell choices apart"
            )
        try:
            call.admit(
                GenerationRequest(prompt=params.prompt, max_tokens=params.max_tokens, n=params.n)
            )
        except ValueError as error:  # the engine could never hold it
            raise HTTPException(400, str(error)) from None


def _usage(output: Output) -> dict[str, int]:
    return {"prompt_tokens": output.prompt_tokens, "completion_tokens": output.tokens}


def _summary(call_id: str, output: Output) -> dict[str, Any]:
    return {
        "id": call_id,
        "finish_reason": output.finish_reason,
        "tokens": output.tokens,
        "usage": _usage(output),
    }


def _whole(call_id: str, choices: list[Chunk], output: Output) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "id": call_id,
        "text": choices[0].text if choices else "",
        "finish_reason": output.finish_reason,
        "usage": _usage(output),
    }
    if len(choices) > 1:
        answer["choices"] = [
            {
                "index": choice.index,
                "text": choice.text,
                "finish_reason": choice.finish_reason or "stop",
            }
            for choice in choices
        ]
    return answer
