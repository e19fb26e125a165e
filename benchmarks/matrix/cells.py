"""What is expected of each cell: told at once, within a bound, never, or impossible; and why."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from streamkit.testing import FAULT_WAYS

Kind: TypeAlias = Literal["at once", "bounded", "unseen", "impossible"]

SETTINGS: Final[Mapping[str, str]] = {
    "write_stall": "1",
    "read_timeout": "1.5",
    "heartbeat": "3",
    "loss_bound": "3",
}
"""Bounds as they are here, so that they can be waited for; their defaults are some ten seconds."""

AT_ONCE: Final = 0.1  # seconds; what is measured is a twentieth of it, where the machine has time
LOOK: Final = 0.5  # seconds from one look at a connection to the next, in the middleware
LATE: Final = 1.0  # seconds by which a bound may be missed: a look, and a busy machine
PATIENCE: Final = 4.0  # seconds for which one that nobody can notice is waited for nevertheless
PING: Final = 1.0  # seconds that granian waits for the answer to an HTTP/2 ping


@dataclass(frozen=True, slots=True)
class Column:
    """One server, with what it is reached by."""

    name: str
    kind: str
    http2: bool = False
    settings: Mapping[str, str] = field(default_factory=dict[str, str])


COLUMNS: Final[Mapping[str, Column]] = {
    column.name: column
    for column in (
        Column("serve h11", "serve", settings={"http": "h11", "loop": "asyncio"}),
        Column("serve httptools", "serve", settings={"http": "httptools", "loop": "uvloop"}),
        Column("uvicorn h11", "uvicorn", settings={"http": "h11", "loop": "asyncio"}),
        Column("uvicorn httptools", "uvicorn", settings={"http": "httptools", "loop": "asyncio"}),
        Column("hypercorn h1", "hypercorn"),
        Column("hypercorn h2", "hypercorn", http2=True),
        Column("granian h1", "granian"),
        Column("granian h2", "granian", http2=True),
    )
}

REQUEST: Final = ("connecting", "headers", "body")
WAITING: Final = ("first_byte", "queued", "prefill")
READING: Final = ("byte", "event", "code_point")
END: Final = ("last_byte", "after_end")
PHASES: Final = (*REQUEST, *WAITING, *READING, *END)
"""Those of the kit; ``queued`` has the slot taken, ``prefill`` has it and a long prompt."""
WAYS: Final = tuple(FAULT_WAYS)


@dataclass(frozen=True, slots=True)
class Case:
    """What a cell is held to.

    Attributes:
        kind: ``at once``; ``bounded`` by something else than the network's word; ``unseen`` by this
            server; ``impossible``, so that there is nothing to measure.
        bound: The name of what bounds it.
        seconds: How long that is here.
        reason: Why the server cannot know, or why there is no such thing.
    """

    kind: Kind
    bound: str = ""
    seconds: float = 0.0
    reason: str = ""


AT_ONCE_CASE: Final = Case("at once", "the connection's end", AT_ONCE)


def bounded(name: str, seconds: float, reason: str) -> Case:
    return Case("bounded", name, seconds, reason)


def setting(name: str, reason: str) -> Case:
    return Case("bounded", f"`{name}`", float(SETTINGS[name]), reason)


def unseen(bound: str, reason: str) -> Case:
    return Case("unseen", bound, PATIENCE, reason)


def impossible(reason: str) -> Case:
    return Case("impossible", reason=reason)


Fits: TypeAlias = Callable[[Column], bool]


def any_server(_: Column) -> bool:
    return True


def on(*kinds: str, http2: bool | None = None) -> Fits:
    return lambda column: column.kind in kinds and http2 in {None, column.http2}


def over(*, http2: bool) -> Fits:
    return lambda column: column.http2 is http2


HEAD: Final = ("connecting", "headers")
ANSWER: Final = (*WAITING, *READING)
H2_WAYS: Final = ("h2_reset", "h2_goaway")
SILENT: Final = "no packet says it; only who waits with a limit can notice"
STALLED: Final = "its connection stands, and one who reads later looks the same"
LOST: Final = setting("loss_bound", SILENT)
LOST_TWICE: Final = bounded(
    "the kernel's limits on its socket, together",
    2 * float(SETTINGS["loss_bound"]),
    "its connections cannot be looked at; SO_KEEPALIVE and TCP_USER_TIMEOUT can be set on the "
    "socket that it is given",
)
PINGED: Final = bounded(
    "granian's `--http2-keep-alive-interval` and `-timeout`",
    float(SETTINGS["read_timeout"]) + PING,
    SILENT,
)

Rule: TypeAlias = tuple[Collection[str], Collection[str], Fits, Case]

RULES: Final[tuple[Rule, ...]] = (
    # -- what there is not -----------------------------------------------------------------------
    (("stay",), PHASES[:-1], any_server, impossible("it leaves in no phase: see `after_end`")),
    (H2_WAYS, PHASES, over(http2=False), impossible("HTTP/1.1 has no streams")),
    (("pipeline",), PHASES, over(http2=True), impossible("HTTP/2 has streams in its place")),
    (
        WAYS,
        ("code_point", "last_byte"),
        over(http2=True),
        impossible("a frame comes whole: no client sees a part of what is in it"),
    ),
    (H2_WAYS, HEAD, any_server, impossible("there is no stream before its head has come")),
    (
        ("tls_cut",),
        PHASES,
        on("serve"),
        impossible("it has no TLS: a proxy in front of it has, which says FIN or RST"),
    ),
    (("slow",), REQUEST, any_server, impossible("there is no answer to be read slowly")),
    (("pipeline",), REQUEST, any_server, impossible("the first request is not whole")),
    (("pipeline",), END, any_server, impossible("the first is answered: a second one is the next")),
    (
        ("slow", "stop_reading", "vanish"),
        END,
        any_server,
        impossible("the engine has ended before: nothing is left that could run on"),
    ),
    # -- who stays, and says nothing -------------------------------------------------------------
    (
        ("stop_reading",),
        HEAD,
        on("uvicorn"),
        unseen(
            "none; no engine is behind it, and `streamkit serve` has `read_timeout`",
            "uvicorn waits for a request's head for ever",
        ),
    ),
    (
        ("stop_reading", "vanish"),
        HEAD,
        on("serve"),
        setting("read_timeout", "a request that does not go on"),
    ),
    (
        ("stop_reading", "vanish"),
        ("body",),
        any_server,
        setting("read_timeout", "a request that does not go on"),
    ),
    (("vanish",), HEAD, on("hypercorn", http2=True), LOST_TWICE),
    (
        ("stop_reading",),
        HEAD,
        on("hypercorn", http2=True),
        unseen(
            "none; no engine is behind it",
            "hypercorn waits for the first stream of a connection for ever",
        ),
    ),
    (
        ("stop_reading", "vanish"),
        HEAD,
        on("hypercorn"),
        bounded("hypercorn's `keep_alive_timeout`", float(SETTINGS["read_timeout"]), SILENT),
    ),
    (
        ("stop_reading", "vanish"),
        ("connecting",),
        on("granian", http2=False),
        unseen(
            "none; no engine is behind it",
            "granian waits for the first byte of a request for ever",
        ),
    ),
    (
        ("stop_reading", "vanish"),
        ("headers",),
        on("granian", http2=False),
        bounded("granian's `--http1-header-read-timeout`", float(SETTINGS["read_timeout"]), SILENT),
    ),
    (("stop_reading", "vanish"), HEAD, on("granian", http2=True), PINGED),
    (
        ("stop_reading", "slow"),
        ANSWER,
        on("hypercorn", http2=True),
        unseen(
            "the answer's own length: `max_tokens`",
            "hypercorn takes all that is sent into memory, so that no write ever blocks",
        ),
    ),
    (("stop_reading", "slow"), ANSWER, any_server, setting("write_stall", STALLED)),
    (
        ("vanish",),
        ANSWER,
        on("granian", http2=False),
        unseen(
            "the kernel's own, a quarter of an hour; a proxy in front of it has a better one",
            "granian opens its own socket, so that nothing can be set on it",
        ),
    ),
    (("vanish",), ANSWER, on("granian", http2=True), PINGED),
    (("vanish",), PHASES, on("hypercorn"), LOST_TWICE),
    (
        ("vanish",),
        HEAD,
        on("uvicorn"),
        unseen(
            "none; no engine is behind it, and `streamkit serve` has `read_timeout`",
            "uvicorn waits for a request's head for ever",
        ),
    ),
    (("vanish",), PHASES, any_server, LOST),
    # -- who hides its leaving behind a second request --------------------------------------------
    (
        ("pipeline",),
        ANSWER,
        on("serve", "uvicorn"),
        bounded("a look at the connection", LOOK, "the second request stands before the end"),
    ),
    (
        ("pipeline",),
        WAITING,
        on("hypercorn"),
        setting("heartbeat", "the second request stands before the end: it takes a write"),
    ),
    (
        ("pipeline",),
        WAITING,
        on("granian"),
        bounded(
            "`heartbeat`, twice",
            2 * float(SETTINGS["heartbeat"]),
            "the second request stands before the end: it takes two writes",
        ),
    ),
    # -- a connection that is kept alive -----------------------------------------------------------
    (
        WAYS,
        ("connecting", *END),
        on("hypercorn"),
        bounded(
            "hypercorn's `keep_alive_timeout`",
            float(SETTINGS["read_timeout"]),
            "no request is there; a connection without one is kept until then",
        ),
    ),
)


def expected(way: str, phase: str, column: Column) -> Case:
    """What a cell is held to: the first rule that fits it."""
    for ways, phases, fits, case in RULES:
        if way in ways and phase in phases and fits(column):
            return case
    return AT_ONCE_CASE
