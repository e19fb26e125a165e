"""`streamkit demo`: real clients leave a real server, and the engine stops; against a plain app."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run ``streamkit demo``; return its exit status."""
    # Only now: the plain app lives in this package too, and starts without an HTTP client.
    from ._command import run  # noqa: PLC0415

    return run(arguments)
