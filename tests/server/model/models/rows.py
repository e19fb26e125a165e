"""Model classes for the rules of Truss: one for each way in which methods take what they take."""

import dataclasses
import datetime as dt
import functools
import inspect
import pickle
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
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


class Mine(starlette.requests.Request):
    """What a model may ask for, and gets the server's own instead."""


def without_wraps(method: Any) -> Any:
    def outer(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return outer


def with_wraps(method: Any) -> Any:
    return functools.wraps(method)(without_wraps(method))


stage: ContextVar[str] = ContextVar("stage", default="none")


class Model:
    """Does what the inputs say."""

    def predict(self, inputs: Any, request: fastapi.Request) -> Any:
        do = inputs["do"] if isinstance(inputs, dict) and "do" in inputs else "echo"
        return getattr(self, do)(inputs, request)

    def echo(self, inputs: Any, request: Any) -> Any:
        return inputs

    def thread(self, inputs: Any, request: Any) -> Any:
        return threading.current_thread() is threading.main_thread()

    async def coroutine(self, inputs: Any, request: Any) -> Any:
        return threading.current_thread() is threading.main_thread()

    def generator(self, inputs: Any, request: Any) -> Iterator[str | bytes]:
        yield "one "
        yield b"two"

    async def async_generator(self, inputs: Any, request: Any) -> AsyncIterator[str]:
        yield "one "
        yield "two"

    def iterator(self, inputs: Any, request: Any) -> Any:
        return Engine()

    def numbers(self, inputs: Any, request: Any) -> Iterator[int]:
        yield 1

    def numpy(self, inputs: Any, request: Any) -> Any:
        import numpy as np  # noqa: PLC0415 - only one of these processes needs it

        return {"a": np.arange(4).reshape(2, 2), "b": np.float32(0.5)}

    def datetime(self, inputs: Any, request: Any) -> Any:
        return dt.datetime(2026, 1, 2, tzinfo=dt.UTC)

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

    def no_content(self, inputs: Any, request: Any) -> Any:
        return PlainTextResponse("in vain", status_code=204)

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
    async def predict(self, anything: Mine) -> Any:
        return (await anything.body()).decode("latin-1")

    def is_healthy(self) -> Any:
        raise ValueError("not well")


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

    def is_healthy(self) -> None: ...


class Staged:
    """One request for all stages, which Truss's annotations do not all recognise."""

    async def preprocess(self, inputs: Any, request: Optional[fastapi.Request] = None) -> Any:  # noqa: UP045
        request.state.seen = [id(request)]
        stage.set("preprocess")
        return inputs

    def predict(self, inputs: Any, request: "fastapi.Request") -> Any:
        request.state.seen.append(id(request))
        return inputs

    async def postprocess(
        self, inputs: Any, *, request: Annotated[fastapi.Request | None, 1]
    ) -> Any:
        request.state.seen.append(id(request))
        return [len(set(request.state.seen)), stage.get(), await request.json()]


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

    @with_wraps
    async def chat_completions(self, inputs: Any, request: fastapi.Request) -> Any:
        return [inputs, request.method]

    def embeddings(self, request) -> Any:
        return request

    def messages(self, *inputs: Any) -> Any:
        return inputs

    def responses(self, **inputs: Any) -> Any:
        return inputs


class Echo:
    """Truss refuses the method beside it, too."""

    async def websocket(self, websocket: fastapi.WebSocket) -> None:
        said = await websocket.receive_text()
        if said == "break":
            raise ValueError("secret")
        await websocket.send_text(said)


class LoadFails:
    def load(self) -> None:
        raise ValueError("no weights here")

    def predict(self, inputs: Any) -> None: ...


# -- what cannot be served ---------------------------------------------------------------------


class EveryReason:
    """Each method breaks a rule of its own."""

    def preprocess(self, request: fastapi.Request, inputs: Any) -> None: ...

    def predict(self, inputs: Any, connection: starlette.requests.HTTPConnection) -> None: ...

    def postprocess(self, result: Any, **more: Any) -> None: ...

    def completions(self, inputs: Any, request: fastapi.Request, more: Any) -> None: ...

    def chat_completions(self, x: Any, request) -> None: ...

    def embeddings(self, inputs: Any, temperature: float = 0.5) -> None: ...

    messages = None

    @without_wraps
    def responses(self, inputs: Any) -> None: ...

    def is_healthy(self, inputs: Any) -> bool: ...


class BadCompany:
    """Its methods do not go together."""

    def preprocess(self, inputs: Any) -> None: ...

    def predict(self, request: fastapi.Request) -> None: ...

    def postprocess(self, request: fastapi.Request) -> None: ...

    def websocket(self, websocket: fastapi.WebSocket, request: fastapi.Request) -> None: ...


class NoMethod:
    def forward(self, inputs: Any) -> None: ...
