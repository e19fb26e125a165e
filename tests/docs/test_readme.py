"""The README's example runs as it is printed, and does what the README says."""

import re
from pathlib import Path

import pytest

from streamkit._core import wait_held
from streamkit.testing import Exchange

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def example() -> dict[str, object]:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    namespace: dict[str, object] = {"__name__": "example"}
    exec(compile(code, "README.md", "exec"), namespace)
    return namespace


def test_the_twenty_lines_are_twenty():
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)

    assert len([line for line in code.splitlines() if line.strip()]) <= 20


async def test_a_client_that_stays_gets_everything(example):
    exchange = await Exchange(example["app"], path="/chat", json={"prompt": "hello"}).run()

    assert exchange.status == 200
    assert len(exchange.events) == 501
    assert exchange.events[-1].event == "done"


async def test_when_the_client_leaves_the_engine_stops(example):
    exchange = Exchange(
        example["app"], path="/chat", json={"prompt": "hello"}, leaves_after_chunks=5
    )
    await exchange.run()
    await wait_held(5)

    statistics = example["engine"].statistics()
    assert (statistics.running, statistics.queued) == (0, 0)
    assert 5 <= statistics.tokens <= 6
