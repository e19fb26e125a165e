"""The reference page of the chaos kit says what the code says, and its examples run.

``python tests/testing/test_chaos_page.py`` writes the tables anew.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from streamkit.testing import FAULT_PHASES, FAULT_WAYS, TOXICS
from tests.testing.test_reference_page import chat_server

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "chaos.md"


def table(name: str, parts: Mapping[str, object]) -> str:
    rows = [f"| {name} | number | the client |", "|---|---|---|"]
    for key, part in parts.items():
        number = "" if part.unit is None else part.unit
        if part.default is not None:
            number += f" [{part.default:g}]"
        rows.append(f"| `{key}` | {number} | {part.meaning} |")
    return "\n".join(rows)


def toxics() -> str:
    rows = ["| toxic | numbers | what it does to a connection |", "|---|---|---|"]
    for name, kind in TOXICS.items():
        numbers = (key if it is None else f"{key} [{it:g}]" for key, it in kind.numbers.items())
        rows.append(f"| `{name}` | {', '.join(numbers)} | {kind.meaning} |")
    return "\n".join(rows)


def with_tables(page: str) -> str:
    tables = {
        "ways": table("way", FAULT_WAYS),
        "phases": table("phase", FAULT_PHASES),
        "toxics": toxics(),
    }
    for name, inside in tables.items():
        between = f"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        page = re.sub(
            between, lambda m, text=inside: f"{m[1]}{text}\n{m[2]}", page, flags=re.DOTALL
        )
    return page


def test_the_tables_are_those_of_the_code() -> None:
    page = PAGE.read_text()

    assert page == with_tables(page), "python tests/testing/test_chaos_page.py"


def examples() -> dict[str, object]:
    namespace: dict[str, object] = {"__name__": "reference"}
    for block in re.findall(r"(?ms)^```python\n(.*?)^```", PAGE.read_text()):
        exec(compile(block, str(PAGE), "exec"), namespace)
    return {name: value for name, value in namespace.items() if name.startswith("test_")}


EXAMPLES = examples()


@pytest.mark.realtime
@pytest.mark.parametrize("name", EXAMPLES)
async def test_an_example_runs(name: str) -> None:
    example = EXAMPLES[name]
    assert inspect.iscoroutinefunction(example)
    async with chat_server() as url:
        await example(url)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
