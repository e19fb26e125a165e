"""What `streamkit check` finds in the text of a model: the same as the rules find in the object."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from streamkit.errors import ModelDefinitionError, TargetNotFound
from streamkit.runner._model import examine
from streamkit.runner._model._check import Finding, Report, Severity, check, check_source

from .rule_cases import CASES, HEAD, Case, module_of


def checked(source: str) -> Report:
    return check_source(Path("model.py"), source.encode(), "Model")


def findings(source: str) -> list[tuple[int, str]]:
    """Line and code of what is found; lines count from the first of ``source``."""
    head = f"{HEAD}\n{IMPORTS}\nclass Model:\n"
    report = checked(head + _indented(dedent(source)))
    return [(each.line - head.count("\n"), each.code) for each in report.findings]


def _indented(source: str) -> str:
    return "".join(f"    {line}\n" for line in source.strip("\n").splitlines())


IMPORTS = """\
import anyio, asyncio, contextlib, subprocess, threading, time, urllib.request, requests
from threading import Thread
from time import sleep as rest
from streamkit import current_token
import transformers
from transformers import AutoModelForCausalLM, TextIteratorStreamer, pipeline
from vllm import LLM
from fastapi.responses import StreamingResponse
"""


# -- as the rules do -------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
def test_text_and_object_are_read_alike(case: Case) -> None:
    report = checked(case.source)
    errors = [each for each in report.findings if each.severity is Severity.ERROR]

    assert bool(errors) is bool(case.refused)
    text = "\n".join(each.text for each in errors)
    assert not [said for said in case.refused if said not in text]
    if case.refused:
        return
    live = examine(module_of(case.source).Model()).by_name
    assert {
        each.name: (each.takes, each.kind, each.asks)
        for each in report.methods
        if each.name != "load"
    } == {name: (each.takes, each.kind, each.asks) for name, each in live.items()}


@pytest.mark.parametrize("case", [case for case in CASES if case.refused], ids=str)
def test_a_refusal_is_worded_alike_and_has_its_line(case: Case) -> None:
    with pytest.raises(ModelDefinitionError) as refusal:
        examine(module_of(case.source).Model())

    found = [each for each in checked(case.source).findings if each.severity is Severity.ERROR]

    lines = case.source.splitlines()
    for each in found:
        assert f"{each.method or 'class Model'}" in lines[each.line - 1]
    said = sorted(str(refusal.value).splitlines())
    assert [line.partition("annotated")[0] for line in sorted(each.text for each in found)] == [
        line.partition("annotated")[0] for line in said
    ]


def test_the_payload_is_parsed_for_the_first_stage() -> None:
    def payload(body: str) -> tuple[bool | None, str]:
        report = checked(f"{HEAD}\nimport requests\nclass Model:\n{_indented(dedent(body))}")
        return report.payload_needed, report.payload.partition(" (")[0]

    both = "def preprocess(self, {}): ...\ndef predict(self, inputs): ..."
    assert payload(both.format("inputs")) == (True, "parsed, for preprocess")
    assert payload("def predict(self, x: list[int]): ...") == (
        True,
        "parsed and validated as `list[int]`, for predict",
    )
    assert payload("def predict(self, x: list[requests.Thing]): ...") == (
        True,
        "parsed and validated as `list[requests.Thing]`, if pydantic can do that, for predict",
    )
    assert payload(both.format("request: Request")) == (False, "not parsed: preprocess")
    assert payload("def predict(self, r: Request): ...") == (False, "not parsed: predict")
    assert payload("async def websocket(self, ws): ...") == (None, "")
    assert payload("predict = unknown()") == (None, "cannot be told")
    assert payload("def predict(self, a, b): ...") == (None, "cannot be told")


# -- how a cancel reaches a method -----------------------------------------------------------------

REACHES = [
    ("async def predict(self, x): ...", "interrupted at its await; `finally` runs"),
    (
        "async def predict(self, x): yield 1",
        "interrupted at its await or closed at its yield; `finally` runs",
    ),
    (
        "def predict(self, x): yield 1",
        "closed on its thread after the next() that runs; `finally` runs",
    ),
    (
        "@cancellable\ndef predict(self, x): yield 1",
        "closed on its thread after the next() that runs; `finally` runs",
    ),
    (
        "def predict(self, x):\n    yield current_token().cancelled",
        "closed on its thread after the next() that runs, which asks (line 2)",
    ),
    ("def predict(self, x): ...", "runs to its end on its thread: nothing in it asks"),
    (
        (
            "def load(self):\n    self.model = transformers.AutoModel.from_pretrained('x')\n"
            "def predict(self, x):\n    return self.model.generate(x)"
        ),
        "transformers asks between two tokens (line 4), and ends `generate()`",
    ),
    (
        "def predict(self, x):\n    return current_token().cancelled",
        "asks on its thread (line 2), and ends itself",
    ),
    (
        "def predict(self, x, r: Request):\n    with r.state.watch_disconnect() as gone: ...",
        "asks on its thread (line 2), and ends itself",
    ),
    (
        "@cancellable(interrupt=True)\ndef predict(self, x): ...",
        "interrupted on its thread, between two lines of Python",
    ),
    (
        "def predict(self, x):\n    return (each for each in x)",
        "runs to its end on its thread: nothing in it asks; the stream that it returns is closed",
    ),
    (
        "def predict(self, x):\n    def stream(): yield 1\n    return stream()",
        "runs to its end on its thread: nothing in it asks; the stream that it returns is closed",
    ),
    (
        "async def predict(self, x, r: Request):\n    await r.is_disconnected()",
        (
            "asks is_disconnected() (line 2), has 2 s to act; "
            "then interrupted at its await; `finally` runs"
        ),
    ),
    (
        "def predict(self, x, r: Request):\n    anyio.from_thread.run(r.is_disconnected)",
        (
            "asks is_disconnected() (line 2), has 2 s to act; "
            "then asks on its thread (line 2), and ends itself"
        ),
    ),
    ("predict = made()", "cannot be told: it is made where this check does not look"),
]


@pytest.mark.parametrize(("body", "said"), REACHES)
def test_the_report_says_how_a_cancel_reaches_a_method(body: str, said: str) -> None:
    head = f"{HEAD}\n{IMPORTS}\nclass Model:\n"
    report = checked(head + _indented(body))

    method = report.methods[-1]
    offset = head.count("\n")
    for line in (1, 2, 4):
        said = said.replace(f"(line {line})", f"(line {offset + line})")
    assert method.cancel == said


def test_what_belongs_to_no_request_is_said_to() -> None:
    methods = checked(
        "class Model:\n    def predict(self, x): ...\n    def load(self): ...\n"
        "    async def is_healthy(self): ...\n    def setup_environment(self, e): ..."
    ).methods

    assert [each.name for each in methods] == [
        "load",
        "predict",
        "is_healthy",
        "setup_environment",
    ]
    assert [each.cancel for each in methods if "belongs to no request" not in each.cancel] == [
        "runs to its end on its thread: nothing in it asks"
    ]


# -- what cannot be cancelled, or blocks -----------------------------------------------------------

BLOCKS = [
    "time.sleep(1)",
    "rest(1)",
    "requests.post('http://engine')",
    "urllib.request.urlopen('http://engine')",
    "subprocess.run(['true'])",
    "input()",
]


@pytest.mark.parametrize("call", BLOCKS)
def test_a_blocking_call_on_the_loop_is_told(call: str) -> None:
    assert findings(f"async def predict(self, x):\n    {call}") == [(2, "blocks-loop")]
    assert findings(f"async def predict(self, x):\n    yield {call}") == [(2, "blocks-loop")]
    assert findings(f"def load(self): {call}\nasync def predict(self, x): ...") == []
    assert findings(f"def predict(self, x): {call}") == [(1, "deaf-call")]
    assert findings(f"def predict(self, x): return (current_token(), {call})") == []


def test_a_blocking_call_is_found_in_helpers_that_run_on_the_loop() -> None:
    assert findings("""
        async def predict(self, x):
            def inside():
                time.sleep(1)
            inside()
            self.help()
            await self.wait()
        def help(self):
            return [time.sleep(1) for _ in range(3)]
        async def wait(self):
            await asyncio.to_thread(current_token)
            time.sleep(1)
        def unused(self):
            time.sleep(1)
    """) == [(3, "blocks-loop"), (8, "blocks-loop"), (11, "blocks-loop")]


def test_a_blocking_call_that_is_handed_to_a_thread_is_none() -> None:
    assert (
        findings("""
        async def predict(self, x):
            current_token()
            await asyncio.to_thread(time.sleep, 1)
    """)
        == []
    )
    assert (
        findings("""
        async def predict(self, x):
            return self.stream()
        def stream(self):
            yield time.sleep(1)
    """)
        == []
    )


def test_a_loop_that_never_awaits_is_told() -> None:
    assert findings("""
        async def predict(self, x):
            while True:
                x += 1
    """) == [(2, "blocks-loop")]
    assert (
        findings("""
        async def predict(self, x):
            while True:
                await anyio.sleep(1)
            while x:
                x -= 1
    """)
        == []
    )
    assert findings("async def predict(self, x):\n    while True:\n        yield x") == []


def test_objects_that_block_are_known_by_how_they_were_made() -> None:
    assert findings("""
        async def predict(self, x, request: Request):
            streamer = TextIteratorStreamer(self.tokenizer)
            for text in streamer:
                yield text
            with request.state.watch_disconnect() as gone:
                gone.wait()
    """) == [(3, "blocks-loop"), (6, "blocks-loop")]


OBJECTS = [
    ("requests.Session()", ".get('x')"),
    ("httpx.Client()", ".stream('x').get()"),
    ("openai.OpenAI()", ".chat.completions.create()"),
    ("subprocess.Popen(['x'])", ".wait()"),
    ("queue.Queue()", ".get()"),
    ("threading.Event()", ".wait()"),
    ("transformers.AutoModelForCausalLM.from_pretrained('x').to('cuda').eval()", ".generate(**x)"),
    ("transformers.pipeline('x')", "(x)"),
    ("vllm.LLM('x')", ".generate(x)"),
    ("llama_cpp.Llama('x')", "(x)"),
    ("sentence_transformers.SentenceTransformer('x')", ".encode(x)"),
]


@pytest.mark.parametrize(("made", "use"), OBJECTS[:1] + OBJECTS[2:])
def test_an_object_that_blocks_is_known_wherever_it_was_made(made: str, use: str) -> None:
    package = made.partition(".")[0]
    head = f"import {package}\n"

    def lines(source: str) -> list[int]:
        report = checked(head + source.replace("MADE", made).replace("USE", use))
        return [each.line for each in report.findings if each.code == "blocks-loop"]

    assert lines(
        "class Model:\n    def load(self): self.it = MADE\n"
        "    async def predict(self, x):\n        await self.it.other()\n        yield self.itUSE\n"
    ) == [6]
    assert lines(
        "it = MADE\nclass Model:\n    async def predict(self, x):\n        itUSE\n"
        "        with MADE as mine:\n            mineUSE\n"
    ) == [5, 7]
    assert not lines(
        "class Model:\n    def load(self): self.it = MADE\n    async def predict(self, x):\n"
        "        it = made()\n        itUSE\n        await self.itUSE\n"
        "        await asyncio.to_thread(lambda: self.itUSE)\n"
    )


def test_what_returns_at_once_or_only_prepares_blocks_nothing() -> None:
    source = f"""{HEAD}
import queue, threading, transformers
class Model:
    def load(self):
        self.queue, self.lock = queue.Queue(), threading.Lock()
        self.lock = threading.Lock()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained("x")
    async def predict(self, x):
        self.lock.acquire(False)
        self.lock.acquire(blocking=False)
        self.queue.put_nowait(self.tokenizer(x))
        return self.tokenizer.decode(x)
"""
    assert checked(source).findings == ()


def test_a_computation_without_gradients_is_told_whoever_made_the_model() -> None:
    source = f"""{HEAD}
import torch
class Model:
    async def predict(self, x):
        with torch.no_grad():
            ids = self.tokenizer(x)
            return self.made_somewhere.generate(ids)
    async def completions(self, x):
        with torch.inference_mode():
            return await self.engine.generate(x)
"""
    line = source[: source.index("self.made_somewhere")].count("\n") + 1
    assert [(each.line, each.code) for each in checked(source).findings] == [(line, "blocks-loop")]


def test_a_file_that_async_code_opens_is_noted() -> None:
    assert findings("""
        async def load(self):
            self.weights = open("weights").read()
        async def predict(self, x):
            with open("a") as file:
                yield file.read()
            yield self.path.read_text()
            yield await self.path.read_text()
            async with aiofiles.open("a") as file:
                yield await file.read()
    """) == [(4, "reads-file"), (6, "reads-file")]


def test_a_question_that_is_not_awaited_is_told() -> None:
    assert findings("""
        async def predict(self, x, request: Request):
            if request.is_disconnected():
                return
            if await request.is_disconnected() or await asyncio.shield(request.is_disconnected()):
                return
    """) == [(2, "not-awaited")]


SWALLOWS = [
    "except:",
    "except BaseException:",
    "except asyncio.CancelledError:",
    "except (ValueError, asyncio.CancelledError) as error:",
    "except anyio.get_cancelled_exc_class():",
]


@pytest.mark.parametrize("handler", SWALLOWS)
def test_a_handler_that_swallows_a_cancel_is_told(handler: str) -> None:
    body = f"""
async def predict(self, x):
    try:
        {{}}
    {handler}
        {{}}
"""
    assert findings(body.format("await anyio.sleep(1)", "pass")) == [(4, "swallows-cancel")]
    assert findings(body.format("await anyio.sleep(1)", "raise")) == []
    assert findings(body.format("x += 1", "pass")) == []


def test_a_handler_after_the_one_that_raises_swallows_nothing() -> None:
    assert (
        findings("""
        async def predict(self, x):
            try:
                await anyio.sleep(1)
            except asyncio.CancelledError:
                raise
            except BaseException:
                pass
            try:
                await anyio.sleep(1)
            except Exception:
                pass
    """)
        == []
    )


def test_waiting_for_a_task_that_was_cancelled_swallows_nothing() -> None:
    assert findings("""
        async def predict(self, x):
            x.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await x
            try:
                await x
            except asyncio.CancelledError:
                pass
            with contextlib.suppress(asyncio.CancelledError):
                await anyio.sleep(1)
    """) == [(9, "swallows-cancel")]


def test_a_generator_that_goes_on_when_it_is_closed_is_told() -> None:
    assert findings("""
        def predict(self, x):
            try:
                yield x
            except GeneratorExit:
                pass
            try:
                x += 1
            except BaseException:
                pass
    """) == [(4, "swallows-cancel")]


def test_a_function_that_does_not_ask_is_told_once() -> None:
    assert findings("""
        def preprocess(self, x):
            for each in x:
                x = each.strip()
            return x
        def predict(self, x):
            x = self.tokenizer(x)
            for _ in range(9):
                self.model(x)
            while x:
                x = self.model(x)
        def postprocess(self, x):
            return self.model(x)
        def completions(self, x):
            return self.help(x)
        def help(self, x):
            for each in x:
                time.sleep(each)
        def embeddings(self, x):
            for each in x:
                self.model(each)
                if current_token().cancelled:
                    return
    """) == [(7, "deaf-loop"), (12, "deaf-call"), (16, "deaf-loop")]


def test_a_call_whose_length_nobody_knows_is_noted() -> None:
    source = """
        def {method}(self, x):
            x = json.loads(x)
            return {call}(x)
    """
    assert findings(source.format(method="predict", call="anyio.compute")) == [(3, "deaf-function")]
    assert findings(source.format(method="predict", call="sorted")) == []
    asks = source.replace("x = ", "current_token(); x = ")
    assert findings(asks.format(method="predict", call="anyio.compute")) == []


def test_a_stream_that_a_function_returns_is_closed_and_need_not_ask() -> None:
    source = """
        def predict(self, x):
            return self.stream(x)
        def stream(self, x):
            for each in x:
                yield self.model(each)
    """
    assert findings(source) == []


def test_a_function_that_may_be_interrupted_need_not_ask() -> None:
    assert findings("@cancellable(interrupt=True)\ndef predict(self, x): self.model(x)") == []


THREADS = [
    "Thread(target=self.model.generate).start()",
    "threading.Thread(target=self.model.generate).start()",
    "await asyncio.to_thread(self.model.generate)",
    "await anyio.to_thread.run_sync(self.model.generate)",
    "await asyncio.get_running_loop().run_in_executor(None, self.model.generate)",
]


@pytest.mark.parametrize("call", THREADS)
def test_a_thread_that_nobody_stops_is_told(call: str) -> None:
    assert findings(f"async def predict(self, x):\n    {call}") == [(2, "thread-runs-on")]
    asks = f"async def predict(self, x):\n    token = current_token()\n    {call}"
    assert findings(asks) == []


GENERATES = [
    "self.model = AutoModelForCausalLM.from_pretrained('x')",
    "self.model = transformers.AutoModelForCausalLM.from_pretrained('x').to('cuda').eval()",
    "self.model: object = AutoModelForCausalLM.from_pretrained('x')",
]
OTHERS = ["self.model = LLM('x')", "self.model = LLM('x').to('cuda')", "self.other = pipeline('x')"]


def generating(load: str, predict: str) -> list[tuple[int, str]]:
    """The findings in a class with this ``load`` and this line in its ``predict``."""
    methods = f"def load(self):\n    {load}\ndef predict(self, x):\n    {predict}"
    return findings(methods)


@pytest.mark.parametrize("load", GENERATES)
def test_generate_of_transformers_ends_by_itself(load: str) -> None:
    assert generating(load, "return self.model.generate(x)") == []
    assert generating(load, "Thread(target=self.model.generate, kwargs=x).start()") == []
    assert generating(load, "return self.model(x)") == [(4, "deaf-call")]
    with_grad = "with requests.no_grad(): x = self.model.generate(x)"
    assert generating(load, with_grad) == []


@pytest.mark.parametrize("load", OTHERS)
def test_generate_of_others_does_not(load: str) -> None:
    assert generating(load, "return self.model.generate(x)") == [(4, "deaf-call")]
    started = generating(load, "Thread(target=self.model.generate, kwargs=x).start()")
    assert started == [(4, "thread-runs-on")]


@pytest.mark.parametrize(
    ("load", "deaf"),
    [
        ("self.model = pipeline('text-generation', model='x')", False),
        ("self.model = transformers.pipeline(task='translation_en_to_fr')", False),
        ("self.model = pipeline('fill-mask')", True),
        ("self.model = pipeline(x)", True),
        ("self.model = LLM('text-generation')", True),
    ],
)
def test_a_pipeline_around_generate_ends_by_itself(load: str, deaf: bool) -> None:
    assert bool(generating(load, "return self.model(x)")) is deaf


def test_what_a_list_or_a_pydantic_model_does_is_no_work() -> None:
    assert findings("def predict(self, x):\n    self.seen.append(x)\n    self.m.json()") == []


LEFT = [
    "asyncio.create_task(self.work())",
    "asyncio.ensure_future(self.work())",
    "asyncio.get_running_loop().create_task(self.work())",
    "task = asyncio.create_task(self.work())\n    yield await queue.get()\n    await task",
    "task = asyncio.create_task(self.work())\n    self.tasks.add(task)",
]
ENDED = [
    "task = asyncio.create_task(self.work())\n    yield 1\n    task.cancel()",
    "task = asyncio.create_task(self.work())\n    await task",
    "one = asyncio.create_task(self.work())\n    await asyncio.gather(one, self.work())",
    "async with asyncio.TaskGroup() as group:\n        group.create_task(self.work())",
]


@pytest.mark.parametrize("body", LEFT)
def test_a_task_that_nobody_ends_is_told(body: str) -> None:
    assert findings(f"async def predict(self, x):\n    {body}") == [(2, "task-runs-on")]


@pytest.mark.parametrize("body", ENDED)
def test_a_task_that_ends_with_its_request_is_fine(body: str) -> None:
    assert findings(f"async def predict(self, x):\n    {body}") == []


# -- what is not what it seems ---------------------------------------------------------------------


def test_a_stream_that_meets_a_postprocess_is_told() -> None:
    after = "\ndef postprocess(self, x): ..."
    code = "stream-and-postprocess"

    assert findings(f"async def predict(self, x): yield 1{after}") == [(1, code)]
    assert findings(f"@cancellable\ndef predict(self, x): yield 1{after}") == [(2, code)]
    assert findings(f"def predict(self, x):\n    return (y for y in x){after}") == [(2, code)]
    assert findings(f"async def predict(self, x):\n    return StreamingResponse(x){after}") == [
        (2, code),
        (2, "own-response"),
    ]
    assert findings(f"async def predict(self, x): ...{after}") == []


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("def predict(self, x):\n    return StreamingResponse(x)", [(2, "own-response")]),
        ("def preprocess(self, x): ...\ndef predict(self): ...", [(2, "drops-result")]),
        ("def predict(self, x): ...\ndef postprocess(self): ...", [(2, "drops-result")]),
        ("def predict(self, **kwargs): ...", [(1, "fails-on-call")]),
        ("def predict(self, x): ...\ndef setup_environment(self): ...", [(2, "fails-on-call")]),
        ("predict = made()", [(1, "unseen-method")]),
        ("@property\ndef predict(self): ...", [(2, "unseen-method")]),
        ("@requests.decorator\ndef predict(self, x): ...", [(2, "unseen-decorator")]),
        ("def predict(self, x, r: requests.Thing): ...", [(1, "unseen-annotation")]),
        ("def predict(self, x): ...\ndef load(self): yield", [(2, "definition")]),
    ],
)
def test_what_is_not_what_it_seems_is_told(body: str, found: list[tuple[int, str]]) -> None:
    assert findings(body) == found


def test_what_a_base_from_elsewhere_has_is_not_held_against_the_class() -> None:
    report = checked("from elsewhere import Base\nclass Model(Base):\n    def load(self): ...")

    assert report.loads
    assert [(each.line, each.code) for each in report.findings] == [(2, "unseen-base")]


def test_what_is_made_on_demand_is_not_held_against_the_class() -> None:
    report = checked("class Model:\n    def __getattr__(self, name): ...")

    assert report.loads
    assert [(each.line, each.code) for each in report.findings] == [(2, "unseen-method")]


def test_a_class_from_elsewhere_is_not_seen() -> None:
    report = checked("from elsewhere import Model")

    assert report.loads
    assert [each.code for each in report.findings] == ["unseen-class"]


@pytest.mark.parametrize(
    "source",
    [
        "from fastapi import FastAPI\nModel = FastAPI(title='x')",
        "import starlette.applications as made\nModel = made.Starlette()",
    ],
)
def test_an_app_is_no_class_and_would_be_refused(source: str) -> None:
    report = checked(source)

    assert not report.loads
    assert [each.code for each in report.findings] == ["definition"]


def test_a_constructor_that_nobody_can_serve_is_refused(tmp_path: Path) -> None:
    extensions: list[str] = []

    def refused(parameters: str) -> bool:
        source = f"class Model:\n    def __init__(self, {parameters}): ...\n    def predict(s): ..."
        report = check_source(tmp_path / "model.py", source.encode(), "Model", extensions)
        codes = [each.code for each in report.findings]
        assert codes in ([], ["constructor"])
        return not report.loads

    assert not refused("config, *args, secrets, environment=None, size=3, **kwargs")
    assert not refused("data_dir, *, lazy_data_resolver, size=3")
    assert refused("config, size")
    assert refused("*, size")
    assert refused("config, /")
    assert refused("trt_llm")
    extensions.append("trt_llm")
    assert not refused("trt_llm")


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("def predict(self, x)\n        pass", 2, "in `def predict(self, x)`: expected ':'"),
        ("def predict(self, x): return )", 2, "unmatched ')'"),
        ("x = \0", 0, "null bytes"),
        (f"x = 1{'+1' * 20000}", 0, "nested deeper in it than Python reads"),
    ],
)
def test_what_is_no_python_is_refused(source: str, line: int, said: str) -> None:
    report = checked(f"class Model:\n    {source}\n")

    [found] = report.findings
    assert (found.line, found.code) == (line or found.line, "syntax")
    assert said in found.text
    assert not report.loads


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("load = None", "Model.load is None"),
        ("async def load(self): yield", "Model.load yields, so calling it runs nothing"),
        ("def load(self, path, size=1): ...", "Model.load(path): it is called without arguments"),
    ],
)
def test_a_load_that_cannot_be_called_is_refused(source: str, said: str) -> None:
    report = checked(f"class Model:\n    {source}\n    def predict(self): ...\n")

    [found] = report.findings
    assert (found.line, found.code) == (2, "definition")
    assert said in found.text


# -- a folder --------------------------------------------------------------------------------------

CONFIG = """\
model_name: tiny
requirements:
- torch
runtime:
  transport:
    kind: grpc
weights:
- source: hf://model
"""


def test_what_a_config_asks_for_and_nobody_does_is_told(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.py").write_text("class Model:\n    def predict(self, x): ...\n")
    config = tmp_path / "config.yaml"
    config.write_text("")
    assert check(str(tmp_path)).findings == ()

    config.write_text(CONFIG)

    def told(finding: Finding) -> tuple[Path | None, int, str]:
        return finding.file, finding.line, finding.text.partition(":")[0]

    assert [told(each) for each in check(str(tmp_path)).findings] == [
        (config, 2, "requirements"),
        (config, 7, "weights"),
        (config, 5, "runtime.transport.kind"),
    ]


def test_a_path_of_trusss_image_that_is_not_here_is_told(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "config.yaml").write_text("")
    model = tmp_path / "model" / "model.py"
    model.write_text(
        "HERE = '/tmp'\nTHERE = '/packages/engine'\nALSO = f'/packages/{HERE}'\n"
        "NO = '/packages.txt'\nclass Model:\n    def predict(self, x): ...\n"
    )

    [found] = check(str(tmp_path)).findings
    assert (found.line, found.code) == (2, "by-hand")
    assert f"`ln -s {tmp_path}/packages /packages`" in found.text
    assert check(str(model)).findings == (), "a file has no layout"


def test_nothing_of_the_models_is_executed(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text("raise SystemExit\nclass Model:\n    async def predict(self, x): ...\n")

    assert check(str(file)).loads


def test_what_has_no_text_cannot_be_checked() -> None:
    with pytest.raises(TargetNotFound, match="no Python source"):
        check("itertools:chain")
