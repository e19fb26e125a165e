"""An engine that has to be loaded admits nobody before that, and ends the process if it fails."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from streamkit.engines import AsyncEngine, Chunk, FakeEngine, Job, Proof
from streamkit.errors import BadPayload
from streamkit.server.app import create_app
from streamkit.server.settings import Settings
from streamkit.testing import Exchange, Lifespan

from .serving import run


class Slow(FakeEngine):
    """Takes its time, or fails."""

    def __init__(self, failure: Exception | None = None) -> None:
        super().__init__()
        self.go = anyio.Event()
        self.loaded = False
        self._why = failure

    async def load(self) -> None:
        await self.go.wait()
        if self._why is not None:
            raise self._why
        self.loaded = True


async def ready(app: object) -> Exchange:
    return await Exchange(app, method="GET", path="/health/ready").run()


async def test_requests_are_refused_until_the_engine_is_loaded(generate) -> None:
    engine = Slow()
    app = create_app(Settings(), engine=engine)
    async with Lifespan(app):
        refused = await generate(app, max_tokens=1).run()
        assert (refused.status, (await ready(app)).status) == (503, 503)
        assert "engine fake is loading" in refused.text
        engine.go.set()
        await app.service.wait_ready()

        assert (await ready(app)).status == 200
        assert (await generate(app, max_tokens=1).run()).status == 200


@pytest.mark.parametrize("mistake", [OSError("no such folder: /x"), ValueError("x is no model")])
async def test_a_model_that_is_not_there_is_named_in_one_line(
    mistake: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Slow(mistake)
    async with Lifespan(app := create_app(Settings(), engine=engine)):
        engine.go.set()
        with pytest.raises(type(mistake)):
            await app.service.wait_ready()

    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert record.getMessage() == f"engine fake did not load: {mistake}"
    assert not record.exc_info


async def test_an_engine_that_does_not_load_says_so_and_stays_closed(
    generate, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Slow(RuntimeError("no such GPU"))
    app = create_app(Settings(), engine=engine)
    async with Lifespan(app):
        engine.go.set()
        with pytest.raises(RuntimeError, match="no such GPU"):
            await app.service.wait_ready()
        refused = await generate(app, max_tokens=1).run()

    assert refused.status == 503
    assert "engine fake did not load" in refused.text
    assert "no such GPU" in caplog.text


async def test_a_load_is_cut_short_by_the_end() -> None:
    engine = Slow()
    async with Lifespan(create_app(Settings(), engine=engine)):
        pass

    assert not engine.loaded


async def test_what_only_the_engine_can_see_to_be_wrong_is_400(generate) -> None:
    class Picky(AsyncEngine):
        async def stream(self, job: Job) -> AsyncGenerator[Chunk]:
            raise BadPayload("the prompt is longer than the model")
            yield  # pragma: no cover - it makes this a generator

    can = replace(FakeEngine().capabilities, observes=False, fence=False, proof=Proof.CLOSED)
    async with Lifespan(app := create_app(Settings(), engine=Picky("picky", can))):
        answer = await generate(app, max_tokens=1).run()

    assert answer.status == 400
    assert "the prompt is longer than the model" in answer.text


BROKEN = """\
from dataclasses import dataclass


@dataclass
class AsyncEngineArgs:
    model: str


class AsyncLLM:
    @classmethod
    def from_engine_args(cls, args):
        raise RuntimeError(f"cannot load {args.model}")
"""
VLLM = ("serve", "--port", "0", "--engine", "vllm")


@pytest.mark.realtime
def test_an_engine_that_does_not_load_ends_the_process_with_status_1(tmp_path: Path) -> None:
    for name in ("vllm/engine/arg_utils.py", "vllm/v1/engine/async_llm.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(BROKEN)

    ended = run(*VLLM, "--engine-option", "model=m", PYTHONPATH=str(tmp_path))

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert "RuntimeError: cannot load m" in ended.stderr


@pytest.mark.realtime
def test_an_engine_that_is_not_installed_is_one_line() -> None:
    ended = run(*VLLM, "--engine-option", "model=m")

    assert ended.returncode == 2
    assert ended.stderr == (
        "streamkit: engine vllm needs the package vllm, which is not installed: pip install vllm\n"
    )


@pytest.mark.realtime
def test_an_engine_that_needs_a_model_says_how_to_name_it() -> None:
    ended = run(*VLLM)

    assert ended.returncode == 2
    assert ended.stderr == (
        "streamkit: engine vllm needs to know which model: --engine-option model=…\n"
    )
