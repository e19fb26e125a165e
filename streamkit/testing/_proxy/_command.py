"""`streamkit chaos proxy`: the proxy with faults, until it is interrupted."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import anyio

from ._proxy import FaultProxy
from ._toxics import TOXICS, Toxic


def main(arguments: Sequence[str]) -> int:
    """Run ``streamkit chaos proxy``; return its exit status."""
    given = _parser().parse_args(arguments)
    try:
        proxy = FaultProxy(given.upstream, *given.toxic, listen=given.listen, seed=given.seed)
    except ValueError as error:
        return _fail(str(error), 2)
    try:
        anyio.run(_serve, proxy, given.upstream)
    except OSError as error:
        return _fail(f"cannot listen on {given.listen}: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        pass
    return 0


async def _serve(proxy: FaultProxy, upstream: str) -> None:
    async with proxy:
        sys.stdout.write(f"streamkit chaos proxy: {proxy.host}:{proxy.port} to {upstream}\n")
        sys.stdout.writelines(f"  {toxic}\n" for toxic in proxy.toxics)
        sys.stdout.flush()
        await anyio.sleep_forever()


def _parser() -> argparse.ArgumentParser:
    kinds = "\n".join(
        f"  {name:11} {kind.meaning} ({', '.join(kind.numbers)})" for name, kind in TOXICS.items()
    )
    parser = argparse.ArgumentParser(
        prog="streamkit chaos proxy",
        description="A TCP proxy with faults, between any two hops.",
        epilog=f"toxics:\n{kinds}\n\nevery toxic also takes stream=upstream and toxicity=0…1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("listen", metavar="LISTEN", help="HOST:PORT to listen on; port 0: a free one")
    add("upstream", metavar="UPSTREAM", help="HOST:PORT to pass everything on to")
    add("--toxic", action="append", default=[], type=_toxic, metavar="KIND:NAME=NUMBER,…")
    add("--seed", type=int, default=0, metavar="N", help="of toxicity, jitter and slices [0]")
    return parser


def _toxic(text: str) -> Toxic:
    try:
        return Toxic.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"streamkit chaos proxy: {message}\n")
    return status
