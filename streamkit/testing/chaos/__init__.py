"""`streamkit chaos`: clients that leave in every way and phase, and whether the server stopped."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run ``streamkit chaos``; return its exit status."""
    # Only now: whoever imports a part of this package may need no command line.
    from ._command import run  # noqa: PLC0415

    return run(arguments)
