"""Which argument is the request: by annotation, however it is written, and never by guessing."""

from __future__ import annotations

import functools
import gc
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, NewType, Optional, Union
from typing import Optional as Maybe

import fastapi
import pytest
import starlette.requests
from starlette.requests import HTTPConnection, Request
from starlette.websockets import WebSocket

from streamkit import cancellable
from streamkit.streams import REQUEST, makes_stream, namespace_of
from streamkit.streams._signature import find_request, request_parameter

if TYPE_CHECKING:
    from elsewhere import Request as Elsewhere  # type: ignore[import-not-found]  # noqa: F401

SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}


class OurRequest(Request):
    pass


def make_request() -> Request:
    return Request(dict(SCOPE))


Alias = Annotated[Request, "from the framework"]
Late = NewType("Late", Request)


def plain(prompt: str, request: Request) -> None: ...
def sub_class(prompt: str, request: OurRequest) -> None: ...
def base_class(prompt: str, request: HTTPConnection) -> None: ...
def socket(prompt: str, request: WebSocket) -> None: ...
def from_fastapi(prompt: str, request: fastapi.Request) -> None: ...
def dotted(prompt: str, request: starlette.requests.Request) -> None: ...
def optional(prompt: str, request: Optional[Request] = None) -> None: ...  # noqa: UP045
def old_union(prompt: str, request: Union[str, Request]) -> None: ...  # noqa: UP007
def new_union(prompt: str, request: Request | None = None) -> None: ...
def annotated(prompt: str, request: Annotated[Request, Any]) -> None: ...
def alias(prompt: str, request: Alias) -> None: ...
def generic(prompt: str, request: Request[Any]) -> None: ...
def renewed(prompt: str, request: Late) -> None: ...
def renamed(prompt: str, request: Maybe[Request] = None) -> None: ...  # noqa: UP045
def quoted(prompt: str, request: "Request") -> None: ...  # noqa: UP037
def quoted_union(prompt: str, request: "Request | None") -> None: ...  # noqa: UP037
def quoted_inside(prompt: str, request: Optional["Request"]) -> None: ...  # noqa: UP037, UP045
def other_name(prompt: str, r: Request) -> None: ...
def keyword_only(prompt: str, *, request: Request) -> None: ...
def positional_only(prompt: str, request: Request, /) -> None: ...
def the_first_of_two(prompt: str, request: Request, other: Request) -> None: ...


async def coroutine(prompt: str, request: Request) -> None: ...
def generator(prompt: str, request: Request) -> Iterator[str]:
    yield prompt


FOUND: list[Callable[..., object]] = [
    plain,
    sub_class,
    base_class,
    socket,
    from_fastapi,
    dotted,
    optional,
    old_union,
    new_union,
    annotated,
    alias,
    generic,
    renewed,
    renamed,
    quoted,
    quoted_union,
    quoted_inside,
    positional_only,
    the_first_of_two,
    coroutine,
    generator,
]


@pytest.mark.parametrize("function", FOUND, ids=lambda function: function.__name__)
def test_the_request_is_found_however_its_annotation_is_written(
    function: Callable[..., object],
) -> None:
    request = make_request()

    assert request_parameter(function) == "request"
    assert find_request(function, ("hi", request), {}) is request
    if function is not positional_only:
        assert find_request(function, ("hi",), {"request": request}) is request


@pytest.mark.parametrize("function", FOUND, ids=lambda function: function.__name__)
def test_annotations_that_are_no_strings_are_as_good(function: Callable[..., object]) -> None:
    with_objects = functools.wraps(function)(lambda *_: None)
    namespace = dict(globals())
    annotations = {name: eval(text, namespace) for name, text in function.__annotations__.items()}
    signature = inspect.signature(function)
    with_objects.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[
            parameter.replace(annotation=annotations[parameter.name])
            for parameter in signature.parameters.values()
        ]
    )

    assert request_parameter(with_objects) == "request"


def test_keyword_only_is_found_by_name_alone() -> None:
    request = make_request()

    assert request_parameter(keyword_only) == "request"
    assert find_request(keyword_only, ("hi",), {"request": request}) is request
    assert find_request(keyword_only, ("hi", request), {}) is None


def test_the_name_of_the_parameter_does_not_matter() -> None:
    def by_name(prompt, request): ...  # type: ignore[no-untyped-def]

    request = make_request()

    assert request_parameter(other_name) == "r"
    assert find_request(other_name, ("hi",), {"r": request}) is request
    assert request_parameter(by_name) is None
    assert find_request(by_name, ("hi", request), {}) is None


def takes_list(requests: list[Request]) -> None: ...
def takes_class(kind: type[Request]) -> None: ...
def takes_handler(handler: Callable[[Request], None]) -> None: ...
def takes_note(prompt: Annotated[str, Request]) -> None: ...
def takes_any(*args: Any, **kwargs: Any) -> None: ...
def takes_nothing() -> None: ...
def nonsense(prompt: "not an annotation", other: "1 + 2") -> None: ...  # type: ignore[valid-type]  # noqa: F722, UP037


OTHERS: list[Callable[..., object]] = [
    takes_list,
    takes_class,
    takes_handler,
    takes_note,
    takes_any,
    takes_nothing,
    nonsense,
    len,
    int,
    "".join,
]


@pytest.mark.parametrize("function", OTHERS, ids=lambda function: function.__name__)
def test_what_only_contains_a_request_is_none(function: Callable[..., object]) -> None:
    request = make_request()

    assert request_parameter(function) is None
    assert find_request(function, (request,), {"request": request}) is None


def unresolved(prompt: "Prompt", request: "elsewhere.Request | None") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037
def wrapped(prompt: str, request: "Optional[elsewhere.Request]") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037, UP045
def noted(prompt: "Annotated[elsewhere.Text, Request]") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037
def another_word(prompt: str, request: "GenerationRequest") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037
def called(prompt: str, request: "make()") -> None: ...  # type: ignore[valid-type]  # noqa: F821, UP037
def indexed(prompt: str, request: "make()[Request]") -> None: ...  # type: ignore[valid-type]  # noqa: F821, UP037
def attribute(prompt: str, request: "make().other") -> None: ...  # type: ignore[valid-type]  # noqa: F821, UP037


def test_a_name_that_does_not_resolve_counts_if_it_is_a_request_word() -> None:
    request = make_request()

    for function in (unresolved, wrapped):
        assert request_parameter(function) == "request"
        assert find_request(function, ("hi", request), {}) is request
        assert find_request(function, ("hi", "no request"), {}) is None
    for function in (noted, another_word, called, indexed, attribute):
        assert request_parameter(function) is None


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement is new in 3.12")
def test_a_type_statement_is_looked_into() -> None:
    namespace: dict[str, Any] = {"Request": Request}
    exec("type Ours = Request | None\ndef typed(prompt: str, request: Ours): ...", namespace)

    assert request_parameter(namespace["typed"]) == "request"


def test_a_name_that_resolves_later_is_found_later() -> None:
    def early(prompt: Later, r: Latest) -> None: ...  # noqa: F821

    assert request_parameter(early) is None

    early.__globals__["Later"], early.__globals__["Latest"] = str, OurRequest
    try:
        assert request_parameter(early) == "r"
    finally:
        del early.__globals__["Later"], early.__globals__["Latest"]
    assert request_parameter(early) == "r"  # remembered


def test_names_of_an_enclosing_function_resolve() -> None:
    class LocalRequest(Request):
        pass

    def local(prompt: str, request: LocalRequest) -> object:
        return LocalRequest, unassigned

    assert request_parameter(local) == "request"
    unassigned = None


class Model:
    def predict(self, inputs: dict[str, str], request: Request) -> None: ...

    @staticmethod
    def static(inputs: dict[str, str], request: Request) -> None: ...

    @classmethod
    def of_class(cls, inputs: dict[str, str], request: Request) -> None: ...

    def __call__(self, inputs: dict[str, str], request: Request) -> None: ...


class Slotted:
    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __call__(self, inputs: str, request: Request) -> None: ...


class Built:
    def __init__(self, inputs: str, request: Request) -> None: ...


def test_methods_are_seen_bound_and_unbound() -> None:
    request, model = make_request(), Model()

    for bound in (model.predict, model.static, model.of_class, Model.of_class, model, Slotted()):
        assert request_parameter(bound) == "request"
        assert find_request(bound, ({}, request), {}) is request
    assert find_request(Model.predict, (model, {}, request), {}) is request
    assert request_parameter(Built) == "request"


def test_partials_are_seen_through_with_what_they_bind() -> None:
    request = make_request()
    by_position = functools.partial(plain, "hi", request)
    by_name = functools.partial(plain, request=request)
    of_prompt = functools.partial(functools.partial(plain, "hi"))
    of_method = functools.partial(Model().predict, {})

    assert find_request(by_position, (), {}) is request
    assert find_request(by_name, ("hi",), {}) is request
    assert find_request(of_prompt, (request,), {}) is request
    assert find_request(of_method, (request,), {}) is request
    assert request_parameter(of_prompt) == "request"


def test_decorators_that_used_wraps_are_seen_through() -> None:
    @functools.wraps(plain)
    def decorated(*args: object, **kwargs: object) -> None: ...

    def without_wraps(*args: object, **kwargs: object) -> None: ...

    request = make_request()

    assert find_request(decorated, ("hi", request), {}) is request
    assert find_request(without_wraps, ("hi", request), {}) is None


def test_what_stands_there_must_be_one() -> None:
    class Fake:
        async def is_disconnected(self) -> bool:
            return False

    fake = Fake()

    assert find_request(plain, ("hi", fake), {}) is fake
    assert find_request(plain, ("hi", "not a request"), {}) is None
    assert find_request(plain, ("hi",), {}) is None
    assert find_request(optional, ("hi", None), {}) is None


class Holder:
    class Mine(Request):
        pass

    def list(self) -> None: ...

    def nested(self, prompt: list[str], request: Mine) -> None: ...

    @functools.wraps(nested)
    def decorated(self, *args: Any) -> None: ...

    partial = staticmethod(functools.partial(plain))

    def __call__(self, prompt: str, request: Mine) -> None: ...


def test_names_of_the_class_resolve_for_its_bound_methods_after_all_others() -> None:
    holder = Holder()

    for bound in (holder.nested, holder.decorated, holder.__call__):
        namespace = namespace_of(bound)
        assert namespace["Mine"] is Holder.Mine
        assert namespace["list"] is list
    assert namespace_of(holder.partial)["Late"] is Late
    assert "Mine" not in namespace_of(Holder.nested)
    assert namespace_of(len)["list"] is list


def test_what_a_model_takes_is_a_request_and_no_other_connection() -> None:
    for annotation in (Request, OurRequest, "Request | None", "elsewhere.Request"):
        assert REQUEST.judge(annotation, globals()).is_request
    for annotation in (HTTPConnection, WebSocket, "WebSocket", "elsewhere.HTTPConnection"):
        assert not REQUEST.judge(annotation, globals()).is_request


def test_what_cancellable_makes_of_generators_is_known_and_nothing_around_it() -> None:
    async def agen() -> Any:
        yield

    def gen() -> Any:
        yield

    async def coroutine() -> None: ...
    def function() -> None: ...

    made = cancellable(agen)

    @functools.wraps(made)
    def around() -> Any:
        return made()

    assert makes_stream(made)
    assert makes_stream(cancellable(gen))
    for other in (agen, around, cancellable(coroutine), cancellable(function), [], len):
        assert not makes_stream(other)  # type: ignore[arg-type]


def test_nothing_of_a_function_is_kept_alive() -> None:
    from streamkit.streams._signature import _places  # noqa: PLC0415

    def short_lived(request: Request) -> None: ...

    gc.collect()  # what other tests have left
    before = len(_places)
    assert request_parameter(short_lived) == "request"
    assert len(_places) == before + 1
    del short_lived
    assert len(_places) == before


def test_starlette_is_never_imported() -> None:
    script = """
import sys
from streamkit.streams._signature import find_request, request_parameter
def plain(prompt: str, number: int): ...
def named(prompt: str, request: "Request"): ...
assert request_parameter(plain) is None and find_request(plain, ("hi", 1), {}) is None
assert request_parameter(named) == "request" and find_request(named, ("hi", 1), {}) is None
assert "starlette" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=20)
