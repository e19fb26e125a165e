"""The server under test: how it is asked, what its answers say, and what it says of itself."""

from __future__ import annotations

import json
import math
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from streamkit._core import now
from streamkit.testing._clients import LeavingClient, open_connection
from streamkit.testing._faults import Ask, Fault, Seen, visit
from streamkit.testing._http1 import BadResponse

from ._profiles import Counters, Profile, fill, names_in

PROMPTS: Final = (
    "Count from one upwards and never stop.",
    "Tell a long story about a lighthouse – in Größe and détail.",
    "word " * 60 + "continue.",
    "List every animal that you know, one after the other.",
)
_PAGE_LIMIT: Final = 16 << 20  # bytes of a page of counters
_SHOWN: Final = 200  # characters
SHORT: Final = 16  # tokens of those who stay
_STAY: Final = Fault.parse("stay")


class CannotTest(Exception):
    """The server cannot be tested like this; the message says why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What a server says of itself, somewhere between ``asked_at`` and ``at``.

    Attributes:
        running: Requests that run or wait.
        tokens: Tokens since its start; None: it does not say.
        wrong: What must not grow, by name.
    """

    asked_at: float
    at: float
    running: float
    tokens: float | None
    wrong: Mapping[str, float] = field(default_factory=dict[str, float])


class Target:
    """One URL, asked as its profile says. Nothing else is ever contacted.

    Attributes:
        url: Of the route that streams.
        model: The one that is asked for, once it is open.
    """

    __slots__ = ("_headers", "_origin", "_profile", "_seed", "_timeout", "_tls", "model", "url")

    def __init__(
        self,
        url: str,
        profile: Profile,
        *,
        seed: int,
        timeout: float,
        headers: Mapping[str, str],
        tls: ssl.SSLContext | None,
    ) -> None:
        parts = urlsplit(url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        path = parts.path if parts.path not in {"", "/"} else profile.path
        self.url = f"{self._origin}{path}{f'?{parts.query}' if parts.query else ''}"
        self._profile = profile
        self._headers = {**profile.headers, **headers}
        self._seed = seed
        self._timeout = timeout
        self._tls = tls
        self.model: str = ""

    @property
    def counts(self) -> bool:
        """Whether it tells what it does."""
        return self._profile.counters is not None

    @property
    def tells_events(self) -> bool:
        """Whether its answers are server-sent events; otherwise the body is the text."""
        return self._profile.text is not None

    @property
    def tells_wrong(self) -> bool:
        """Whether it tells what went wrong."""
        return self._profile.counters is not None and bool(self._profile.counters.wrong)

    async def open(self, model: str | None) -> None:
        """Find out what is needed to ask, and whether its counters are where they should be.

        Raises:
            CannotTest: It does not answer, or not what its profile says.
        """
        await self.choose(model)
        if self.counts:
            await self.count()

    async def choose(self, model: str | None) -> None:
        """Ask for that model, or else for the first that it lists, if it wants a name at all.

        Raises:
            CannotTest: It does not answer, or lists none.
        """
        if model is not None:
            self.model = model
        elif self._profile.models and "{model}" in names_in(self._profile.json):
            page = await self.get(self._profile.models)
            try:
                self.model = _text_in(page, "data.0.id")
            except (LookupError, ValueError):
                raise CannotTest(
                    f"{self._profile.models} lists no model: name one with --model"
                ) from None

    def ask(self, prompt: int | str, tokens: int) -> Ask:
        """The request for a prompt, or for ours with that number, and so many tokens."""
        text = PROMPTS[prompt % len(PROMPTS)] if isinstance(prompt, int) else prompt
        values: dict[str, str | int] = {
            "prompt": text,
            "max_tokens": tokens,
            "seed": self._seed,
            "model": self.model,
        }
        return Ask(
            url=self.url,
            method=self._profile.method,
            json=fill(self._profile.json, values),
            headers=self._headers,
            timeout=self._timeout,
            tls=self._tls,
        )

    async def answer(self, prompt: int, tokens: int = SHORT) -> Seen:
        """Ask and read to the end, as a client that stays."""
        return await visit(self.ask(prompt, tokens), _STAY)

    def text_of(self, seen: Seen) -> str:
        """The text of an answer, without what differs from request to request."""
        if self._profile.text is None:
            return bytes(seen.body).decode(errors="replace")
        events = [event.data for event in seen.events if event.event == "message"]
        if not self._profile.text:
            return "".join(events)
        return "".join(_piece_in(data, self._profile.text) for data in events if data != "[DONE]")

    async def count(self) -> Count:
        """Read its counters.

        Raises:
            CannotTest: They are not there.
        """
        where = self._profile.counters
        assert where is not None
        asked_at = now()
        page = await self.get(where.path)
        numbers = _json_numbers(page) if page.lstrip()[:1] == "{" else _metrics(page)
        running = _sum(numbers, where.running, where)
        # A counter that nothing was counted with yet is often left out.
        told = where.tokens and all(name in numbers for name in where.tokens)
        tokens = _sum(numbers, where.tokens, where) if told else None
        wrong = {name: value for name, value in numbers.items() if _is_below(name, where.wrong)}
        return Count(asked_at=asked_at, at=now(), running=running, tokens=tokens, wrong=wrong)

    async def get(self, path: str) -> str:
        """Read a page of the same server.

        Raises:
            CannotTest: It is not there.
        """
        headers = {**self._headers, "accept": "*/*", "connection": "close"}
        url = f"{self._origin}{path}"
        try:
            async with open_connection(url, timeout=self._timeout, tls=self._tls) as client:
                await client.send_request("GET", path, headers=headers)
                head, body = await client.read_head(), await _read_page(client)
        except (OSError, BadResponse) as error:
            said = below_http(f"{type(error).__name__}: {error}")
            raise CannotTest(f"{url} does not answer: {said}") from None
        if head.status != 200:
            raise CannotTest(f"{url} answered {head.status}; is this the right --target-profile?")
        return body.decode(errors="replace")

    def __repr__(self) -> str:
        return f"<Target {self.url}>"


def below_http(error: str) -> str:
    """What became of a connection, ``TypeOfError: text``, and what to do about it."""
    if "refused" in error.lower():
        return "the connection was refused; is it running, and at that port?"
    if "certificate" in error.lower():
        return f"{error}; --insecure believes any certificate"
    return f"{error}; does it speak TLS at that port?" if "ssl" in error.lower() else error


async def _read_page(client: LeavingClient) -> bytes:
    page = b""
    while piece := await client.read_chunk():
        page += piece
        if len(page) > _PAGE_LIMIT:
            raise BadResponse(f"it is longer than {_PAGE_LIMIT} bytes")
    return page


def _piece_in(data: str, path: str) -> str:
    try:
        return _text_in(data, path)
    except (ValueError, LookupError):
        return ""  # an event without text: usage, a role


def _text_in(data: str, path: str) -> str:
    """Raise ValueError if it is no JSON, LookupError if there is no text."""
    found = _inside(parse_json(data), path.split("."))
    match found:
        case str():
            return found
        case _:
            raise LookupError(path)


def parse_json(text: str) -> Any:
    """Read what a server under test sent, which may be anything; raises ValueError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _inside(value: object, path: Sequence[str]) -> object:
    for name in path:
        match value:
            case list():
                value = cast("list[object]", value)[int(name)]
            case dict():
                value = cast("dict[str, object]", value)[name]
            case _:
                raise LookupError(name)
    return value


def _json_numbers(page: str) -> Mapping[str, float]:
    flat: dict[str, float] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for name, inner in cast("dict[str, Any]", value).items():
                walk(inner, f"{path}.{name}" if path else name)
        elif isinstance(value, int | float):
            flat[path] = float(value)

    try:
        walk(parse_json(page), "")
    except (ValueError, OverflowError, RecursionError) as error:
        raise CannotTest(f"its counters are no JSON with numbers: {error}") from None
    return flat


def _metrics(page: str) -> Mapping[str, float]:
    sums: dict[str, float] = {}
    try:
        for family in text_string_to_metric_families(page):
            for sample in family.samples:  # engines and models are labels: all together count
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    except Exception as error:  # noqa: BLE001 - the parser says of nonsense whatever it stumbles over
        said = f"{type(error).__name__}: {error}"[:_SHOWN]
        raise CannotTest(f"its counters are no Prometheus text: {said!r}") from None
    return sums


def _is_below(name: str, tops: Sequence[str]) -> bool:
    return any(name == top or name.startswith(f"{top}.") for top in tops)


def _sum(numbers: Mapping[str, float], names: Sequence[str], where: Counters) -> float:
    missing = [name for name in names if name not in numbers]
    if missing:
        raise CannotTest(
            f"{where.path} does not tell {', '.join(missing)}; is this the right --target-profile?"
        )
    total = sum(numbers[name] for name in names)
    if not math.isfinite(total):
        raise CannotTest(f"{where.path} tells no number of {', '.join(names)}: {total}")
    return total
