"""`POST /generate`: the plain form for a served engine, as a stream or as one answer."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from streamkit.asgi import ByteStream, EventStream
from streamkit.engines import Chunk, GenerationRequest
from streamkit.runner import Call, Output

from ._accept import accepts_events
from ._body import read_model
from ._engine_route import EngineRoute


class GenerateRequest(BaseModel):
    """The body. What an engine can hold, it says itself; what is too much for any, this says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    n: int = Field(default=1, ge=1, le=128)  # as OpenAI's API has it
    stream: bool = False


class Generate(EngineRoute):
    """The route."""

    __slots__ = ()

    async def _answer(self, request: Request, call: Call) -> Response:
        params = await read_model(request, GenerateRequest, self._settings, call.token)
        output = self._admit(call, [self._understood(params)])
        if not params.stream:
            return JSONResponse(_whole(call.id, await call.read(), output))
        if not accepts_events(request.scope):
            return ByteStream(call.stream(), media_type="text/plain; charset=utf-8")
        return EventStream(
            call.stream(),
            heartbeat=self._settings.heartbeat,
            summary=lambda: _summary(call.id, output),
        )

    def _understood(self, params: GenerateRequest) -> GenerationRequest:
        limit = self._settings.max_tokens_limit
        if params.max_tokens is not None and params.max_tokens > limit:
            raise HTTPException(400, f"max_tokens: input should be less than or equal to {limit}")
        if params.stream and params.n > 1:
            raise HTTPException(
                400, "n: must be 1 when stream is true: plain text cannot tell choices apart"
            )
        return GenerationRequest(prompt=params.prompt, max_tokens=params.max_tokens, n=params.n)


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
