"""What a model's methods take, how calling them behaves, and which models are refused with why."""

from __future__ import annotations

import functools
import inspect
import sys
from typing import Any

import pytest

from streamkit.errors import ModelDefinitionError, UsageBug
from streamkit.runner._model import KNOWN, Kind, Method, Takes, examine

from .rule_cases import CASES, HEAD, POSTPONED, Case, module_of


def read(source: str) -> dict[str, Method]:
    return dict(examine(module_of(source).Model()).by_name)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_model_is_read_by_the_rules(case: Case) -> None:
    if case.refused:
        with pytest.raises(ModelDefinitionError) as refusal:
            read(case.source)
        assert not [said for said in case.refused if said not in str(refusal.value)]
        return

    methods = read(case.source)

    found = {name: (method.takes, method.kind) for name, method in methods.items()}
    assert found | case.methods == found
    assert {name for name, method in methods.items() if method.asks} == case.asks


def test_a_refusal_is_a_bug_of_who_wrote_the_class() -> None:
    with pytest.raises(UsageBug):
        read("class Model: ...")
    with pytest.raises(TypeError):
        read("class Model: ...")


def test_a_function_that_hides_its_arguments_is_refused() -> None:
    with pytest.raises(ModelDefinitionError, match=r"Model.predict does not say what it takes"):
        read("class Model:\n    predict = staticmethod(max)")


@pytest.mark.parametrize(
    ("parameters", "positional", "by_name"),
    [
        ("", (), {}),
        ("inputs", ("I",), {}),
        ("request: Request", ("R",), {}),
        ("inputs, request: Request", ("I", "R"), {}),
        ("inputs, /, request: Request = None", ("I", "R"), {}),
        ("*inputs", ("I",), {}),
        ("*, inputs", (), {"inputs": "I"}),
        ("*, request: Request", (), {"request": "R"}),
        ("inputs, *, request: Request", ("I",), {"request": "R"}),
        ("*, inputs, request: Request", (), {"inputs": "I", "request": "R"}),
        ("*rest, request: Request", ("I",), {"request": "R"}),
    ],
)
def test_a_method_is_called_with_what_it_takes(
    parameters: str, positional: tuple[str, ...], by_name: dict[str, str]
) -> None:
    method = read(f"{HEAD}\nclass Model:\n    def predict(self, {parameters}): return locals()")[
        "predict"
    ]

    args, kwargs = method.bind("I", "R")

    assert (args, kwargs) == (positional, by_name)
    said = method.call(*args, **kwargs)
    assert isinstance(said, dict)
    assert len(said) == 1 + len(positional) + len(by_name)


@pytest.mark.parametrize("kind", Kind)
def test_what_only_makes_an_object_is_called_on_the_loop(kind: Kind) -> None:
    method = Method("predict", print, Takes.INPUTS, kind)

    assert method.on_loop is (kind is not Kind.FUNCTION)


@pytest.mark.parametrize(
    ("preprocess", "predict", "first", "needed"),
    [
        ("", "self, inputs", "predict", True),
        ("", "self", "predict", False),
        ("", "self, request: Request", "predict", False),
        ("", "self, inputs, request: Request", "predict", True),
        ("self, inputs", "self, inputs", "preprocess", True),
        ("self, request: Request", "self, inputs", "preprocess", False),
        ("self", "self, inputs", "preprocess", False),
    ],
)
def test_the_payload_is_needed_where_the_first_stage_takes_inputs(
    preprocess: str, predict: str, first: str, needed: bool
) -> None:
    stages = f"    def predict({predict}): ...\n"
    if preprocess:
        stages += f"    def preprocess({preprocess}): ...\n"
    methods = examine(module_of(f"{HEAD}\nclass Model:\n{stages}").Model())

    assert methods.first is methods.by_name[first]
    assert methods.needs_payload is needed


def test_a_model_of_a_websocket_alone_has_no_first_stage() -> None:
    methods = examine(module_of("class Model:\n    async def websocket(self, ws): ...").Model())

    assert methods.first is None
    assert not methods.needs_payload
    assert methods.websocket is methods.by_name["websocket"]


ANNOTATED = """
import typing
from typing import Annotated
from pydantic import BaseModel, Field
if typing.TYPE_CHECKING:
    from elsewhere import Hidden

class Prompt(BaseModel):
    text: str

class Model:
    class Inner(BaseModel):
        number: int
    def list(self): ...
    def preprocess(self, inputs: list[Prompt]): ...
    def predict(self, inputs: Annotated[int, Field(gt=1)]): ...
    def postprocess(self, inputs: "Inner | None"): ...
    def completions(self, inputs: "Hidden"): ...
    def chat_completions(self, inputs: "no annotation"): ...
    def embeddings(self, inputs): ...
"""


@pytest.mark.parametrize("head", ["", "from __future__ import annotations\n"])
def test_the_annotation_of_the_inputs_is_resolved(head: str) -> None:
    source = ANNOTATED.replace("    def list(self): ...\n", "") if not head else ANNOTATED
    module = module_of(head + source)

    methods = examine(module.Model()).by_name

    assert methods["preprocess"].annotation == list[module.Prompt]
    assert repr(methods["predict"].annotation).startswith("typing.Annotated[int, FieldInfo(")
    assert methods["postprocess"].annotation == module.Model.Inner | None
    assert "Hidden" in str(methods["completions"].annotation)
    assert "no annotation" in str(methods["chat_completions"].annotation)
    assert methods["embeddings"].annotation is inspect.Parameter.empty


def test_the_annotation_is_the_one_of_the_decorated_function() -> None:
    method = read(f"""{POSTPONED}{HEAD}
def logged(function):
    @functools.wraps(function)
    def inner(*args: str): ...
    return inner

class Model:
    @logged
    def predict(self, inputs: dict[str, T], request: Request): ...
""")["predict"]

    assert str(method.annotation) == "dict[str, ~T]"


def test_a_request_alone_has_no_inputs_to_validate() -> None:
    method = read(f"{HEAD}\nclass Model:\n    def predict(self, request: Request): ...")["predict"]

    assert method.annotation is inspect.Parameter.empty


class Engine:
    """Callable objects are methods, too."""

    async def __call__(self, inputs: dict[str, Any]) -> None: ...

    def bound(self, inputs: dict[str, Any], more: int) -> None: ...


def test_partials_and_callable_objects_are_seen_through() -> None:
    class Model:
        predict = Engine()

        def __init__(self) -> None:
            self.preprocess = functools.partial(Engine().bound, more=1)
            self.postprocess = functools.partial(Engine().bound, {})

    with pytest.raises(ModelDefinitionError, match="preprocess"):  # `more` can still be given
        examine(Model())
    del Model.__init__
    method = examine(Model()).by_name["predict"]

    assert (method.takes, method.kind) == (Takes.INPUTS, Kind.COROUTINE)
    assert method.annotation == dict[str, Any]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement is new in 3.12")
def test_a_type_statement_is_looked_into() -> None:
    source = f"{HEAD}\ntype Ours = Request | None\ntype Lost = Nowhere\nclass Model:\n"
    methods = read(
        f"{source}    def predict(self, inputs: Lost, request: Ours): ...\n"
        "    def completions(self, lost: Lost): ..."
    )

    assert methods["predict"].takes is Takes.BOTH
    assert methods["completions"].takes is Takes.INPUTS


def test_every_known_method_is_read_and_no_other() -> None:
    lines = "".join(
        f"    {'async ' * (name == 'websocket')}def {name}(self): ...\n"
        for name in (*KNOWN, "load", "other")
        if name != "websocket"
    )

    assert read(f"class Model:\n{lines}").keys() == set(KNOWN) - {"websocket"}
