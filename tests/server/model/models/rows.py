"""Model classes for the rules of Truss: one for each way in which methods take what they take."""

import dataclasses
import datetime as dt
import inspect
import pickle
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Optional

import anyio
import fastapi
import starlette.exceptions
import starlette.requests
from pydantic import BaseModel, RootModel
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse


class Item(BaseModel):
    v: int
    name: str = "none"


class Items(BaseModel):
    items: list[Item]


class Numbers(RootModel[list[int]]):
    """What Truss cannot define, because its module is nowhere to be found."""


@dataclasses.dataclass
class Pickled:
    number: int


class Model:
    """Does what the inputs say."""

    def predict(self, inputs: Any, request: fastapi.Request) -> Any:
        do = inputs["do"] if isinstance(inputs, dict) and "do" in inputs else "echo"
        return getattr(self, do)(inputs, request)

    def echo(self, inputs: Any, request: Any) -> Any:
        return inputs

    def type(self, inputs: Any, request: Any) -> Any:
        return type(inputs["value"]).__name__

    async def coroutine(self, inputs: Any, request: Any) -> Any:
        return "coroutine"

    def generator(self, inputs: Any, request: Any) -> Iterator[str | bytes]:
        yield "one "
        yield b"two"

    async def async_generator(self, inputs: Any, request: Any) -> AsyncIterator[str]:
        yield "one "
        yield "two"

    def iterator(self, inputs: Any, request: Any) -> Any:
        return Engine()

    def nested(self, inputs: Any, request: Any) -> Any:
        return {"items": Items(items=[Item(v=1)]), "at": dt.date(2026, 1, 2)}

    def pydantic(self, inputs: Any, request: Any) -> Any:
        return Item(v=1)

    def root(self, inputs: Any, request: Any) -> Any:
        return Numbers([1, 2]).root

    def pickled(self, inputs: Any, request: Any) -> Any:
        return pickle.loads(pickle.dumps(Pickled(7))).number

    def nan(self, inputs: Any, request: Any) -> Any:
        return float("nan")

    def bytes(self, inputs: Any, request: Any) -> Any:
        return b"\x00\xff"

    def set(self, inputs: Any, request: Any) -> Any:
        return {1}

    def response(self, inputs: Any, request: Any) -> Any:
        return PlainTextResponse("mine", headers={"x-mine": "yes"})

    def error_response(self, inputs: Any, request: Any) -> Any:
        return JSONResponse({"my": "error"}, status_code=422)

    def streaming_response(self, inputs: Any, request: Any) -> Any:
        return StreamingResponse(self.async_generator(inputs, request), media_type="text/x-mine")

    def value_error(self, inputs: Any, request: Any) -> Any:
        raise ValueError("secret")

    def fastapi_error(self, inputs: Any, request: Any) -> Any:
        raise fastapi.HTTPException(418, {"a": "teapot"}, {"x-kettle": "on"})

    def starlette_error(self, inputs: Any, request: Any) -> Any:
        raise starlette.exceptions.HTTPException(409, "conflict")

    def number_error(self, inputs: Any, request: Any) -> Any:
        raise fastapi.HTTPException(400, 5)

    async def late_error(self, inputs: Any, request: Any) -> AsyncIterator[str]:
        yield "one "
        raise ValueError("secret")

    async def early_error(self, inputs: Any, request: Any) -> AsyncIterator[str]:
        raise fastapi.HTTPException(402, "pay first")
        yield

    async def chat_completions(self, inputs: Item) -> Any:
        return {"v": inputs.v}

    def completions(self, request: fastapi.Request) -> Any:
        return request.url.path

    async def is_healthy(self) -> bool:
        return False


class Engine:
    """An async iterator that is no generator, as engines return them."""

    def __init__(self) -> None:
        self.left = ["one ", "two"]

    def __aiter__(self) -> "Engine":
        return self

    async def __anext__(self) -> str:
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)


class Validated:
    """The first stage is annotated; what later stages are annotated with is not held."""

    def preprocess(self, inputs: Items) -> Any:
        return [item.v for item in inputs.items]

    def predict(self, inputs: Item) -> Any:
        return inputs


class RequestOnly:
    async def predict(self, request: starlette.requests.Request) -> Any:
        return (await request.body()).decode("latin-1")


class Preprocessed:
    """Truss parses here, against its documentation."""

    async def preprocess(self, request: fastapi.Request) -> Any:
        return (await request.body()).decode("latin-1")

    async def predict(self, inputs: Any) -> Any:
        return inputs

    def postprocess(self, inputs: Any) -> Any:
        return inputs.upper()


class Nothing:
    def preprocess(self) -> None: ...

    def predict(self) -> None: ...

    def postprocess(self) -> Any:
        return "from nothing"


class Staged:
    """One request for all stages, which Truss's annotations do not all recognise."""

    async def preprocess(self, inputs: Any, request: Optional[fastapi.Request] = None) -> Any:  # noqa: UP045
        request.state.seen = [id(request)]
        return inputs

    def predict(self, inputs: Any, request: "fastapi.Request") -> Any:
        request.state.seen.append(id(request))
        return inputs

    async def postprocess(
        self, inputs: Any, *, request: Annotated[fastapi.Request | None, 1]
    ) -> Any:
        request.state.seen.append(id(request))
        return len(set(request.state.seen))


class Generators:
    """Each stage one."""

    def preprocess(self, inputs: Any) -> Iterator[int]:
        yield from range(inputs)

    async def predict(self, inputs: Any) -> Any:
        assert inspect.getgeneratorstate(inputs) == inspect.GEN_CREATED
        return sum(inputs)

    async def postprocess(self, inputs: Any) -> AsyncIterator[str]:
        yield f"{inputs} "
        yield "end"


class Postprocessed:
    """A stream and a stage behind it: told with each request, not when it is loaded."""

    async def predict(self, inputs: Any) -> AsyncIterator[str]:
        yield "one"

    def postprocess(self, inputs: Any) -> Any:
        return inputs


class AsyncLoad:
    loaded = False

    async def load(self) -> None:
        await anyio.sleep(0.1)
        self.loaded = True

    def predict(self, inputs: Any) -> Any:
        return self.loaded


class OnlyCompletions:
    """Truss refuses it, against its documentation."""

    def completions(self, inputs: Any) -> Any:
        return inputs


class LoadFails:
    def load(self) -> None:
        raise ValueError("no weights here")

    def predict(self, inputs: Any) -> None: ...


# -- what cannot be served ---------------------------------------------------------------------


class RequestFirst:
    def predict(self, request: fastapi.Request, inputs: Any) -> None: ...


class NoRequest:
    def predict(self, inputs: Any, request) -> None: ...


class ThreeArguments:
    def predict(self, inputs: Any, request: fastapi.Request, more: Any) -> None: ...


class PreprocessedRequest:
    def preprocess(self, inputs: Any) -> None: ...

    def predict(self, request: fastapi.Request) -> None: ...


class PostprocessedRequest:
    def predict(self, inputs: Any) -> None: ...

    def postprocess(self, request: fastapi.Request) -> None: ...


class NoMethod:
    def forward(self, inputs: Any) -> None: ...


class BothWorlds:
    def predict(self, inputs: Any) -> None: ...

    async def websocket(self, websocket: fastapi.WebSocket) -> None: ...


class SyncWebsocket:
    def websocket(self, websocket: fastapi.WebSocket) -> None: ...


class HealthOfInputs:
    def predict(self, inputs: Any) -> None: ...

    def is_healthy(self, inputs: Any) -> bool: ...
