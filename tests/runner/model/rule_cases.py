"""Model classes as source text, and what the rules say of each: read live, and read as text."""

from __future__ import annotations

from dataclasses import dataclass, field
from textwrap import dedent, indent
from types import ModuleType

HEAD = """\
import functools, typing
from typing import Annotated, Any, NewType, Optional, TypeAlias, TypeVar, Union
import fastapi
import starlette.requests
import starlette.requests as sr
from fastapi import Request
from fastapi import Request as R
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket
from streamkit import cancellable
import streamkit

class OurRequest(Request):
    pass

class TheirRequest(OurRequest):
    pass

Alias = Request
MaybeRequest = Request | None
Named: TypeAlias = "Optional[Request]"
Late = NewType("Late", Request)
T = TypeVar("T")
Bound = TypeVar("Bound", bound=Request)
Either = TypeVar("Either", dict, OurRequest)
"""
POSTPONED = "from __future__ import annotations\n"
FOR_CHECKERS = """\
if typing.TYPE_CHECKING:
    import elsewhere
    from elsewhere import Request as Renamed
    from starlette.requests import Request as Starlettes
"""


@dataclass(frozen=True, slots=True)
class Case:
    """One class ``Model``: what its methods take and are, or why it is refused."""

    name: str
    source: str
    methods: dict[str, tuple[str, str]] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    asks: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.name


def module_of(source: str) -> ModuleType:
    """Execute a source as a module of its own."""
    module = ModuleType("a_model")
    exec(compile(source, "a_model.py", "exec", dont_inherit=True), vars(module))
    return module


def case(name: str, body: str, /, *refused: str, asks: str = "", **methods: str) -> Case:
    """``body`` is that of the class; each method is given as ``"takes: kind"``."""
    return whole(
        name,
        f"{HEAD}\nclass Model:\n{indent(dedent(body), '    ')}",
        *refused,
        asks=asks,
        **methods,
    )


def whole(name: str, source: str, /, *refused: str, asks: str = "", **methods: str) -> Case:
    split = {method: tuple(said.split(": ")) for method, said in methods.items()}
    return Case(name, dedent(source), split, refused, frozenset(asks.split()))  # type: ignore[arg-type]


# -- what counts as a request ----------------------------------------------------------------------

REQUESTS = (
    "Request",
    "R",
    "fastapi.Request",
    "fastapi.requests.Request",
    "starlette.requests.Request",
    "sr.Request",
    "OurRequest",
    "TheirRequest",
    "Request[Any]",
    "Alias",
    "MaybeRequest",
    "Named",
    "Late",
    "Bound",
    "Either",
    "Optional[Request]",
    "typing.Optional[fastapi.Request]",
    "Union[None, Request]",
    "Request | None",
    "None | sr.Request",
    "Annotated[Request, 'of the server']",
    "Annotated[Optional[Request], 1]",
    "Optional[Annotated[OurRequest, 1]]",
    "'Request'",
    "'R | None'",
    "Optional['Request']",
    "'Annotated[fastapi.Request, 1]'",
    "'unknown.Request'",
    "'Union[unknown.Request, None]'",
)
NO_REQUESTS = (
    "Any",
    "dict",
    "object",
    "T",
    "'unknown.Other'",
    "HTTPConnection",
    "WebSocket",
    "list[Request]",
    "type[Request]",
    "Annotated[str, Request]",
    "'Renamed'",
    "'GenerationRequest'",
    "typing.Callable[[Request], None]",
    "typing.Literal['Request']",
    "5",
)
WITH_REQUEST = ("preprocess", "predict", "postprocess", "chat_completions", "setup_environment")


def _one(method: str, parameters: str) -> str:
    rest = "" if method == "predict" else "def predict(self, inputs): ...\n"
    return f"{rest}def {method}(self, {parameters}): ..."


def _forms() -> list[Case]:
    cases: list[Case] = []
    for postponed, mark in (("", ""), (POSTPONED, "postponed ")):
        head = f"{postponed}{HEAD}{FOR_CHECKERS}\nclass Model:\n"
        for method in WITH_REQUEST if postponed else ("predict",):
            for form in REQUESTS + (("Starlettes | elsewhere.Request",) if postponed else ()):
                body = indent(_one(method, f"inputs: dict, request: {form} = None"), "    ")
                cases.append(
                    whole(
                        f"{method}: {mark}{form}",
                        head + body,
                        **{method: "inputs and request: function"},
                    )
                )
        for form in NO_REQUESTS:
            body = indent(_one("predict", f"inputs, request: {form}"), "    ")
            cases.append(
                whole(
                    f"no request: {mark}{form}",
                    head + body,
                    "Model.predict(inputs, request)",
                    "must have request as second argument (type annotated)",
                    "`request` is annotated `",
                    "annotate it with fastapi.Request",
                )
            )
            body = indent(_one("predict", f"request: {form}"), "    ")
            cases.append(whole(f"alone: {mark}{form}", head + body, predict="inputs: function"))
    return cases


# -- what a method takes ---------------------------------------------------------------------------

TAKES = [
    case("nothing at all", "def predict(self): ...", predict="nothing: function"),
    case("inputs", "def predict(self, inputs): ...", predict="inputs: function"),
    case("a name says nothing", "def predict(self, request): ...", predict="inputs: function"),
    case("request alone", "def predict(self, r: Request): ...", predict="request: function"),
    case("inputs by keyword", "def predict(self, *, inputs): ...", predict="inputs: function"),
    case("request by keyword", "def predict(self, *, r: R): ...", predict="request: function"),
    case(
        "both, request by keyword",
        "def predict(self, inputs, *, request: Request): ...",
        predict="inputs and request: function",
    ),
    case(
        "both by keyword",
        "def predict(self, *, inputs, request: Request): ...",
        predict="inputs and request: function",
    ),
    case("stars", "def predict(self, *args): ...", predict="inputs: function"),
    case("double stars", "def predict(self, **kwargs): ...", predict="inputs: function"),
    case("stars alone", "def predict(*args): ...", predict="inputs: function"),
    case(
        "by position only",
        "def predict(self, inputs, request: Request, /): ...",
        predict="inputs and request: function",
    ),
    case(
        "static and of the class",
        """
        @staticmethod
        def preprocess(inputs, request: Request): ...
        @classmethod
        def predict(cls, inputs, request: Request): ...
        """,
        preprocess="inputs and request: function",
        predict="inputs and request: function",
    ),
    case(
        "no stage takes anything",
        """
        def preprocess(self): ...
        def predict(self): ...
        def postprocess(self): ...
        """,
        preprocess="nothing: function",
        predict="nothing: function",
        postprocess="nothing: function",
    ),
    case(
        "a name of the class itself",
        """
        class Mine(Request): ...
        def predict(self, inputs, request: "Mine"): ...
        """,
        predict="inputs and request: function",
    ),
    whole(
        "a class that is called Request and is none",
        "class Request: ...\nclass Model:\n    def predict(self, request: Request): ...",
        predict="inputs: function",
    ),
    whole(
        "a name made of itself",
        f"{HEAD}\nRequest = Optional[Request]\nclass Model:\n"
        "    def predict(self, inputs, request: Request): ...",
        predict="inputs and request: function",
    ),
    whole(
        "names in a circle",
        """
        first = second = str
        first = "second"
        second = "first"
        class Model:
            def predict(self, inputs: "first"): ...
        """,
        predict="inputs: function",
    ),
    whole(
        "imported where it can be, else None",
        """
        try:
            from fastapi import Request
        except ImportError:
            Request = None
        class Model:
            def predict(self, inputs, request: Request): ...
        """,
        predict="inputs and request: function",
    ),
]

# -- what calling it does --------------------------------------------------------------------------

KINDS = [
    case("function", "def predict(self, inputs): return 1", predict="inputs: function"),
    case("coroutine", "async def predict(self, inputs): ...", predict="inputs: coroutine"),
    case("generator", "def predict(self, inputs): yield 1", predict="inputs: generator"),
    case(
        "generator that hands on",
        "def predict(self, inputs): yield from inputs",
        predict="inputs: generator",
    ),
    case(
        "async generator",
        "async def predict(self, inputs): yield 1",
        predict="inputs: async generator",
    ),
    case(
        "a generator inside makes no generator",
        """
        def predict(self, inputs):
            def stream():
                yield 1
            return stream()
        """,
        predict="inputs: function",
    ),
    case("lambda", "predict = lambda self, inputs: inputs", predict="inputs: function"),
    case(
        "one method under two names",
        """
        async def predict(self, inputs, request: Request): ...
        chat_completions = predict
        """,
        predict="inputs and request: coroutine",
        chat_completions="inputs and request: coroutine",
    ),
    whole(
        "a function of the file as a method",
        "async def run(self, inputs): ...\nclass Model:\n    predict = run",
        predict="inputs: coroutine",
    ),
    case(
        "put onto the object",
        """
        def __init__(self):
            self.predict = self.fast
            self.preprocess = lambda inputs: inputs
        async def fast(self, inputs): yield 1
        """,
        preprocess="inputs: function",
        predict="inputs: async generator",
    ),
    case(
        "made cancellable",
        """
        @cancellable
        async def preprocess(self, inputs): ...
        @cancellable(close_grace=1)
        def predict(self, inputs): yield 1
        @streamkit.cancellable
        def postprocess(self, inputs): ...
        async def stream(self, inputs): yield 1
        completions = cancellable(stream)
        embeddings = cancellable(cancellable(stream))
        """,
        preprocess="inputs: coroutine",
        predict="inputs: async generator",
        postprocess="inputs: function",
        completions="inputs: async generator",
        embeddings="inputs: function",
    ),
    whole(
        "a decorator that used wraps",
        f"""{HEAD}
def logged(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function(*args, **kwargs)
    return inner

def retried(times):
    def decorate(function):
        @functools.wraps(function)
        async def inner(*args, **kwargs):
            return await function(*args, **kwargs)
        return inner
    return decorate

def registered(function):
    return function

class Model:
    @registered
    @retried(3)
    async def preprocess(self, inputs, request: Request): ...
    @logged
    async def predict(self, inputs, request: Request):
        await request.is_disconnected()
    @logged
    @cancellable
    async def postprocess(self, inputs): yield 1
""",
        asks="predict",
        preprocess="inputs and request: coroutine",
        predict="inputs and request: function",
        postprocess="inputs: function",
    ),
    whole(
        "a decorator without wraps",
        """
        def logged(function):
            def inner(*args, **kwargs):
                return function(*args, **kwargs)
            return inner
        class Model:
            @logged
            async def predict(self, inputs): ...
        """,
        "Model.predict(*args, **kwargs)",
        "must have request as second argument (type annotated)",
        "functools.wraps",
    ),
    whole(
        "inherited",
        f"""{HEAD}
class Base:
    def preprocess(self, inputs): ...
    def predict(self, inputs): ...

class Middle(Base):
    async def predict(self, inputs, request: Request): yield 1

class Model(Middle):
    pass
""",
        preprocess="inputs: function",
        predict="inputs and request: async generator",
    ),
]

# -- who asks after the client ---------------------------------------------------------------------

ASKING = [
    case(
        "asks in its own code, nested, and through helpers of class and file",
        """
        async def preprocess(self, inputs, request: Request):
            if await request.is_disconnected():
                return
        async def predict(self, inputs, request: Request):
            async def poll():
                return await request.is_disconnected()
            yield poll
        def postprocess(self, inputs, request: Request):
            return self._look(request)
        async def completions(self, inputs):
            return inputs
        def _look(self, request):
            return self._look_again(request)
        def _look_again(self, request):
            return request.is_disconnected
        """,
        asks="preprocess predict postprocess",
        completions="inputs: coroutine",
    ),
    whole(
        "asks in a function of the file",
        f"{HEAD}\nasync def gone(request): return await request.is_disconnected()\n"
        "class Model:\n    async def predict(self, inputs, request: Request):\n"
        "        return await gone(request)",
        asks="predict",
    ),
    case(
        "asks under @cancellable",
        """
        @cancellable
        async def predict(self, inputs, request: Request):
            yield await request.is_disconnected()
        """,
        asks="predict",
    ),
    case(
        "what cancellable itself does is not the model's",
        "@cancellable\nasync def predict(self, inputs): yield 1",
        predict="inputs: async generator",
    ),
]

# -- what is refused -------------------------------------------------------------------------------

REFUSED = [
    case(
        "request first",
        "def predict(self, request: Request, inputs): ...",
        "Model.predict(request, inputs)",
        "not allowed to have request as first argument, request must be second",
        "`request` and `inputs`",
    ),
    case(
        "two requests",
        "def predict(self, a: Request, b: Request): ...",
        "not allowed to have request as first argument",
    ),
    case(
        "second not annotated",
        "def chat_completions(self, x, request): ...\ndef predict(self, x): ...",
        "Model.chat_completions(x, request)",
        "must have request as second argument (type annotated)",
        "write `request: fastapi.Request`",
    ),
    case(
        "a default is no second argument",
        "def predict(self, inputs, temperature: float = 0.5): ...",
        "must have request as second argument (type annotated)",
        "`temperature` is annotated `float`",
    ),
    case(
        "inputs and stars",
        "def predict(self, inputs, *rest): ...",
        "must have request as second argument (type annotated)",
        "`*rest` is none",
    ),
    case(
        "inputs and double stars",
        "def predict(self, inputs, **rest): ...",
        "must have request as second argument (type annotated)",
        "`**rest` is none",
    ),
    case(
        "three",
        "def predict(self, inputs, request: Request, temperature=1): ...",
        "Model.predict(inputs, request, temperature)",
        "cannot have more than two arguments",
        "leave out `temperature`",
    ),
    *(
        case(
            f"preprocess({arguments}) and a predict with the request alone",
            f"def preprocess(self{arguments}): ...\ndef predict(self, request: Request): ...",
            "Model.predict(request)",
            "cannot only have the request argument",
        )
        for arguments in ("", ", inputs", ", request: Request", ", inputs, request: Request")
    ),
    case(
        "postprocess with the request alone",
        "def predict(self, x): ...\ndef postprocess(self, request: Request): ...",
        "Model.postprocess(request)",
        "The `postprocess` method cannot only have the request",
    ),
    case(
        "nothing to call",
        "def load(self): ...\ndef preprocess(self, inputs): ...",
        "Model: ",
        "must have a `predict` or `websocket` method",
    ),
    *(
        case(
            f"websocket and {other}",
            f"async def websocket(self, websocket: WebSocket): ...\ndef {other}(self, x): ...",
            "cannot have both",
        )
        for other in ("predict", "preprocess", "postprocess")
    ),
    case(
        "websocket without argument",
        "async def websocket(self): ...",
        "must have only one argument: `websocket`",
    ),
    case(
        "websocket with a request",
        "async def websocket(self, request: Request): ...",
        "must have only one argument: `websocket`",
    ),
    case(
        "websocket with both",
        "async def websocket(self, websocket, request: Request): ...",
        "must have only one argument: `websocket`",
    ),
    case(
        "websocket that is not async",
        "def websocket(self, websocket: WebSocket): ...",
        "must be async function definitions",
    ),
    case(
        "websocket that yields",
        "async def websocket(self, websocket: WebSocket): yield 1",
        "must be async function definitions",
    ),
    *(
        case(
            f"is_healthy({arguments})",
            f"def predict(self, x): ...\ndef is_healthy(self, {arguments}): ...",
            "`is_healthy` must have only one argument: `self`",
        )
        for arguments in ("inputs", "request: Request", "inputs, request: Request")
    ),
    *(
        case(
            f"{method} without self",
            f"def completions(self, x): ...\ndef {method}({parameters}): ...",
            f"Model.{method} takes no `self`: write `def {method}(self, inputs)`",
        )
        for method, parameters in (("predict", ""), ("postprocess", "*, inputs"))
    ),
    *(
        case(
            f"{method} is None",
            f"def predict(self, x): ...\n{method} = None",
            f"Model.{method} is None",
            "delete it",
        )
        for method in ("preprocess", "predict", "is_healthy", "websocket", "responses")
    ),
    case(
        "None on the object",
        "def __init__(self): self.postprocess = None\ndef predict(self, x): ...",
        "Model.postprocess is None",
    ),
    case(
        "no function",
        "predict = 'text'",
        "Model.predict is no function but 'text'",
    ),
    case(
        "several reasons at once",
        "def predict(self, a, b): ...\ndef embeddings(self, a, b, c): ...",
        "Model.predict(a, b)",
        "Model.embeddings(a, b, c)",
    ),
]

# -- what is not -----------------------------------------------------------------------------------

ADMITTED = [
    *(
        case(f"{route} alone", f"async def {route}(self, x): ...", **{route: "inputs: coroutine"})
        for route in ("completions", "chat_completions", "embeddings", "messages", "responses")
    ),
    case(
        "websocket",
        "async def websocket(self, websocket: WebSocket): ...",
        websocket="inputs: coroutine",
    ),
    case(
        "websocket and a route",
        "async def websocket(self, websocket): ...\ndef embeddings(self, r: Request): ...",
        websocket="inputs: coroutine",
        embeddings="request: function",
    ),
    case(
        "healthy",
        "def predict(self, x): ...\nasync def is_healthy(self): ...",
        is_healthy="nothing: coroutine",
    ),
]

CASES = [*_forms(), *TAKES, *KINDS, *ASKING, *REFUSED, *ADMITTED]
