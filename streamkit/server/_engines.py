"""`streamkit engines`: which engines there are, what each needs, and what a cancel does to it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from streamkit.engines import KnownEngine, engine_names, known_engine

_DESCRIPTION: Final = """\
Lists the engines that `streamkit serve --engine NAME` can serve: whether each is installed, what
becomes of a request that is cancelled in its queue, in prefill and in decode, and what proves that
the engine stopped. With NAME, also what is not possible with it, and why. No engine is imported.
"""
_EPILOG: Final = """\
What of this was seen to be true, on which versions, is in docs/reference/engine-capabilities.md;
`python -m streamkit.testing.check` looks for itself.

exit status: 0, or 2 wrong usage or no such engine
"""
_HEAD: Final = ("engine", "installed", "in the queue", "in prefill", "in decode", "proof")


def main(arguments: Sequence[str]) -> int:
    """Run ``streamkit engines``; return its exit status."""
    given = _parser().parse_args(arguments)
    try:
        engines = [known_engine(name) for name in given.name or engine_names()]
    except ValueError as error:
        sys.stderr.write(f"streamkit engines: {error}\n")
        return 2
    if given.json:
        lines = iter([json.dumps([engine.as_json() for engine in engines], indent=2)])
    else:
        lines = _details(engines) if given.name else _table(engines)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="streamkit engines",
        usage="streamkit engines [--json] [NAME …]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("name", nargs="*", metavar="NAME", help="all there is to say of this one")
    parser.add_argument("--json", action="store_true", help="print one JSON array instead")
    return parser


def _table(engines: Sequence[KnownEngine]) -> Iterator[str]:
    rows = [_HEAD, *((each.name, _installed(each), *each.reach.values()) for each in engines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def _details(engines: Sequence[KnownEngine]) -> Iterator[str]:
    for number, engine in enumerate(engines):
        if number:
            yield ""
        yield f"{engine.name}: {_installed(engine)}"
        yield "a cancelled request"
        yield from (f"  {where:10}{what}" for where, what in engine.reach.items())
        yield f"takes     {', '.join(sorted(engine.capabilities.takes)) or 'no options'}"
        yield f"options   {', '.join(engine.options) or 'none'}"
        if engine.cannot:
            yield "not possible"
            yield from (f"  {what}: {why}" for what, why in engine.cannot.items())


def _installed(engine: KnownEngine) -> str:
    if not engine.package:
        return "built in"
    return "installed" if engine.installed else f"no: {engine.install}"
