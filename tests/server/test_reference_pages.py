"""The reference pages' tables say what the code says.

``python tests/server/test_reference_pages.py`` writes them anew.
"""

import re
from functools import partial
from pathlib import Path

import pytest

from streamkit._core import Phase
from streamkit.engines import engine_options
from streamkit.server._metrics import FAMILIES, TIMINGS
from streamkit.server._serve import shown
from streamkit.server.app import create_app
from streamkit.server.settings import Settings, flag_of, variable_of

PAGES = Path(__file__).parents[2] / "docs" / "reference"
ENDED = {Phase.FINISHED, Phase.CANCELLED, Phase.FAILED, Phase.QUARANTINED}
HOW_TO_CHANGE = "if you meant it: python tests/server/test_reference_pages.py"


def settings_table() -> list[str]:
    rows = [
        f"| `{name}` | `{flag_of(name)}` | `{variable_of(name)}` | `{shown(field.default)}` "
        f"| {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return ["| setting | flag | variable | default | meaning |", "|---|---|---|---|---|", *rows]


def options_table(engine: str) -> list[str]:
    rows = [
        f"| `{option.name}` | `{shown(option.default)}` | {option.kind.expected} | {option.help} |"
        for option in engine_options(engine)
    ]
    header = f"| option of `--engine {engine}` | default | value | meaning |"
    return [header, "|---|---|---|---|", *rows]


def metrics_table() -> list[str]:
    families = [
        (family.name + "_total" * (family.kind == "counter"), family.kind, family)
        for family in FAMILIES
    ]
    timings = [(timing.name, "histogram", timing) for timing in TIMINGS]
    rows = [
        f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in spec.labels)} | {spec.help} |"
        for name, kind, spec in (*families, *timings)
    ]
    return ["| metric | kind | labels | meaning |", "|---|---|---|---|", *rows]


TABLES = {
    "settings": ("settings.md", settings_table),
    "options": ("settings.md", partial(options_table, "fake")),
    "options-transformers": ("settings.md", partial(options_table, "transformers")),
    "options-vllm": ("settings.md", partial(options_table, "vllm")),
    "options-sglang": ("settings.md", partial(options_table, "sglang")),
    "options-triton": ("settings.md", partial(options_table, "triton")),
    "options-trtllm": ("settings.md", partial(options_table, "trtllm")),
    "options-llama_cpp": ("settings.md", partial(options_table, "llama_cpp")),
    "options-upstream": ("settings.md", partial(options_table, "upstream")),
    "metrics": ("metrics.md", metrics_table),
}


def split(page: str, name: str) -> tuple[str, str, str]:
    match = re.fullmatch(rf"(.*<!-- {name} -->\n)(.*)(<!-- /{name} -->.*)", page, re.DOTALL)
    assert match is not None, f"no place for the table of {name}"
    return match[1], match[2], match[3]


@pytest.mark.parametrize("name", TABLES)
def test_a_reference_table_is_the_codes_own(name: str) -> None:
    file, table = TABLES[name]

    _, written, _ = split((PAGES / file).read_text(), name)

    assert written.splitlines() == table(), HOW_TO_CHANGE


def test_the_routes_on_the_reference_page_are_those_that_there_are() -> None:
    page = (PAGES / "http.md").read_text()
    described = set(re.findall(r"^## `(?:GET|POST) (\S+)`", page, re.MULTILINE))

    assert described == {path.rstrip("/") for path in create_app().paths}


@pytest.mark.parametrize(
    ("file", "phases"),
    [("http.md", set(Phase)), ("metrics.md", set(Phase) - ENDED)],
)
def test_every_phase_of_a_request_is_on_the_page(file: str, phases: set[Phase]) -> None:
    [row] = re.findall(r"^\| `phase` \|.*$", (PAGES / file).read_text(), re.MULTILINE)

    assert set(re.findall(r"`(\w+)`", row)) - {"phase"} == {phase.value for phase in phases}


if __name__ == "__main__":
    for name, (file, table) in TABLES.items():
        page = PAGES / file
        before, _, after = split(page.read_text(), name)
        page.write_text(before + "".join(f"{line}\n" for line in table()) + after)
