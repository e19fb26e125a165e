"""docs/reference/servers.md speaks of the versions that the tests run on."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_names_the_versions_that_are_tested() -> None:
    page = (ROOT / "docs" / "reference" / "servers.md").read_text()
    pins = (ROOT / "constraints.txt").read_text()

    for name in ("uvicorn", "hypercorn", "granian"):
        row = re.search(rf"^\| {name} \| ([0-9.]+) \|", page, re.MULTILINE)
        assert row, name
        assert f"\n{name}=={row[1]}\n" in pins, "measure again: benchmarks/leaving_by_server.py"
