"""The conformance kit as a command: ``python -m streamkit.testing.check module:factory``."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import sys
from collections.abc import Sequence

from ._clock import VirtualTimeLoop
from ._conformance import PHASES, WAYS, CheckPlan, EngineFactory, check_engine

__all__: list[str] = []

_DEFAULTS = CheckPlan()


def main(arguments: Sequence[str] | None = None) -> int:
    """Check an engine and print the report; return 0 when it passed, 1 when it did not."""
    options = _parser().parse_args(arguments)
    plan = CheckPlan(
        prompt=options.prompt,
        long_prompt="word " * options.long_words,
        answer_tokens=options.answer_tokens,
        bound=options.bound,
        cancels=options.cancels,
        slots=options.slots,
        phases=tuple(options.phase or PHASES),
        ways=tuple(options.way or WAYS),
    )
    make_loop = VirtualTimeLoop if options.virtual_time else None
    with asyncio.Runner(loop_factory=make_loop) as runner:
        report = runner.run(check_engine(options.factory, plan))
    text = json.dumps(report.as_json(), indent=2) if options.json else str(report)
    sys.stdout.write(f"{text}\n")
    return 0 if report.passed else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m streamkit.testing.check",
        description="Check that an engine stops when it is told to, in every phase and way.",
    )
    add = parser.add_argument
    add("factory", type=_load, help="package.module:name of what makes the engine, sync or async")
    add("--prompt", default=_DEFAULTS.prompt, help="a short prompt")
    add("--long-words", type=int, default=4_000, help="words of the long prompt")
    add("--answer-tokens", type=int, default=_DEFAULTS.answer_tokens, help="of what is cancelled")
    add("--bound", type=float, default=_DEFAULTS.bound, help="seconds from a cancel to its proof")
    add("--cancels", type=int, default=_DEFAULTS.cancels, help="in the search for leaks")
    add("--slots", type=int, help="requests that run at once, where its statistics do not say")
    add("--phase", action="append", choices=PHASES, help="leave in this one; may be repeated")
    add("--way", action="append", choices=WAYS, help="leave by this one; may be repeated")
    add("--virtual-time", action="store_true", help="for an engine that waits on the event loop")
    add("--json", action="store_true", help="print the report as JSON")
    return parser


def _load(target: str) -> EngineFactory:
    module, colon, name = target.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{target!r} is not package.module:name")
    sys.path.insert(0, "")  # as `python -m` of the user's own would have it
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise argparse.ArgumentTypeError(f"cannot load {target!r}: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
