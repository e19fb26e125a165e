"""What the client says that it understands."""

from __future__ import annotations

from starlette.requests import Request


def accepts_events(request: Request) -> bool:
    """Whether it names ``text/event-stream``; a ``*/*`` is nobody's wish for events."""
    for accepted in ",".join(request.headers.getlist("accept")).split(","):
        kind, *parameters = (part.strip().lower() for part in accepted.split(";"))
        if kind == "text/event-stream":
            return not any(p in {"q=0", "q=0.0", "q=0.00", "q=0.000"} for p in parameters)
    return False
