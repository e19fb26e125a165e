"""Break the code in one place at a time, and see which test notices: ``make mutants``.

It works on a copy, one process at a time. The table that it writes says what it was made from.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.mutation.mutants import Mutant, mutants_of

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs/reference/mutants.md"
LIMIT = 60.0  # seconds for the tests of one mutant; a test that hangs has noticed

# Which tests are about which file; those that know it best come first.
CORE = ["tests/core", "tests/streams/test_calls.py", "tests/streams/test_cancellable_async.py"]
EDGE = ["tests/asgi", "tests/server/test_leaving.py"]
MODEL = ["tests/runner/model", "tests/server/model", "tests/security/test_owners.py"]


def _files(folder: str, tests: list[str]) -> dict[str, list[str]]:
    return {f"{folder}/{path.name}": tests for path in (ROOT / folder).glob("_[a-z]*.py")}


PARTS: dict[str, dict[str, list[str]]] = {}
PARTS["core"] = {
    **_files("streamkit/_core", CORE),
    "streamkit/streams/_stream.py": ["tests/streams", *EDGE],
    "streamkit/streams/_insist.py": ["tests/streams", *EDGE],
    "streamkit/asgi/_request_owner.py": [*EDGE, "tests/server/test_every_moment.py"],
    "streamkit/asgi/_owner.py": [*EDGE, "tests/server/test_every_moment.py"],
    "streamkit/asgi/_gather.py": [*EDGE, "tests/server/test_generate.py"],
}
PARTS["model"] = {
    **_files("streamkit/runner/_model", MODEL),
    **_files("streamkit/server/_model", MODEL[::-1]),
}
# These tests run none of it: `make canary` does, or a process on the real clock.
UNRUN = {
    "streamkit/_core/_trio_loop.py",
    "streamkit/server/_model/_service.py",
    "streamkit/runner/_model/_environment.py",
}


class Fate(NamedTuple):
    """What became of a mutant."""

    path: str
    mutant: Mutant
    caught_by: str | None

    @property
    def key(self) -> str:
        """Its name in accepted.toml: it survives changes elsewhere in the file."""
        return f"{self.path}: {' '.join(self.mutant.old.split())} -> {self.mutant.text}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--part", choices=PARTS, default="core", help="of the code (core)")
    parser.add_argument("--count", type=int, default=60, help="mutants to draw (60)")
    parser.add_argument("--seed", type=int, default=0, help="decides which (0)")
    parser.add_argument("--file", action="append", help="only of this file; may be repeated")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.relative_to(ROOT)}")
    options = parser.parse_args()
    everything = [
        (path, mutant)
        for path in sorted(options.file or set(PARTS[options.part]) - UNRUN)
        for mutant in mutants_of((ROOT / path).read_text())
    ]
    drawn = random.Random(options.seed).sample(everything, min(options.count, len(everything)))
    fates: list[Fate] = []
    with tempfile.TemporaryDirectory() as folder:
        for fate in _tried(Path(folder), sorted(drawn), PARTS[options.part]):
            print(f"{fate.path}:{fate.mutant.line}: {fate.mutant}: {fate.caught_by}", flush=True)
            fates.append(fate)
    accepted = tomllib.loads((ROOT / "tests/mutation/accepted.toml").read_text())
    if options.write:
        table = _table(fates, accepted, options.seed, len(everything))
        TABLE.write_text(_put(TABLE.read_text(), options.part, table))
    new = [fate for fate in fates if fate.caught_by is None and fate.key not in accepted]
    for fate in new:
        print(f"survived: {fate.key}")
    return 1 if new else 0


def _tried(
    folder: Path, drawn: list[tuple[str, Mutant]], covered: dict[str, list[str]]
) -> Iterator[Fate]:
    for name in ("streamkit", "tests", "docs", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for path, mutant in drawn:
        source = (ROOT / path).read_text()
        (folder / path).write_text(mutant.apply(source))
        yield Fate(path, mutant, _caught_by(folder, covered[path]))
        (folder / path).write_text(source)


def _caught_by(folder: Path, tests: list[str]) -> str | None:
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "--tb=no", "-m", "not realtime"]
    # The copy comes before what is installed, which is the checkout.
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    try:
        ran = subprocess.run(
            [*command, "-p", "no:cacheprovider", *tests],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no end within {LIMIT:g} s"
    if ran.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", ran.stdout, re.MULTILINE)
    return failed[1] if failed else "importing it"


def _put(page: str, part: str, table: str) -> str:
    begin, end = f"<!-- {part} -->\n", f"<!-- /{part} -->"
    before, _, rest = page.partition(begin)
    return f"{before}{begin}{table}{end}{rest.partition(end)[2]}"


def _table(fates: list[Fate], accepted: dict[str, str], seed: int, of: int) -> str:
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    caught = sum(fate.caught_by is not None for fate in fates)
    rows = [
        f"| `{fate.path.removeprefix('streamkit/')}:{fate.mutant.line}` | {fate.mutant} | "
        f"{_verdict(fate, accepted)} |"
        for fate in fates
    ]
    return "\n".join(
        [
            f"{len(fates)} of {of} mutants, drawn with seed {seed}, at commit `{commit.strip()}`:",
            f"{caught} caught, {len(fates) - caught} survived, each with its reason.",
            "",
            "| where | what | caught by |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _verdict(fate: Fate, accepted: dict[str, str]) -> str:
    if fate.caught_by is None:
        return f"survives: {accepted.get(fate.key, 'not looked at yet')}"
    return f"`{fate.caught_by}`".replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
