"""`streamkit doctor`: what a proxy does to streams and to leaving, and which setting changes it."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run ``streamkit doctor``; return its exit status."""
    # Only now: whoever imports a part of this package may need no command line.
    from ._command import run  # noqa: PLC0415

    return run(arguments)
