"""What a kind of server is asked, where its answers have their text, and where its counters are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, cast


class BadTemplate(ValueError):
    """A request template cannot be used; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Where a server tells what it does.

    Attributes:
        path: Of a Prometheus page, or of a JSON object.
        running: Names to add up: of requests that run or wait. In JSON dots lead inwards.
        tokens: Names to add up: of tokens made since the start; may be empty.
        wrong: Names of what must not grow: broken words, slots that were given up. All numbers
            below a name count; may be empty.
    """

    path: str
    running: Sequence[str]
    tokens: Sequence[str] = ()
    wrong: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One kind of server.

    Attributes:
        path: Of the route that streams, where the URL has none.
        json: The request's body; ``{prompt}``, ``{max_tokens}``, ``{seed}`` and ``{model}`` in its
            strings are filled in, and a string that is only ``{max_tokens}`` or ``{seed}`` becomes
            a number.
        method: HTTP method.
        headers: Request headers.
        text: Where the text is in the data of each event: dots lead inwards, empty: all of it.
            None: the answer's body is the text.
        counters: Where to see whether it stopped; None: it does not say.
        models: A route that lists models, where a request must name one.
    """

    path: str = "/"
    json: object = None
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    text: str | None = None
    counters: Counters | None = None
    models: str | None = None


_COMPLETION: Final = {
    "model": "{model}",
    "prompt": "{prompt}",
    "max_tokens": "{max_tokens}",
    "seed": "{seed}",
    "temperature": 0,
    "stream": True,
}
_CHAT: Final = {
    **{name: value for name, value in _COMPLETION.items() if name != "prompt"},
    "messages": [{"role": "user", "content": "{prompt}"}],
}

PROFILES: Final[Mapping[str, Profile]] = {
    "streamkit": Profile(
        path="/generate",
        json={"prompt": "{prompt}", "max_tokens": "{max_tokens}", "stream": True},
        headers={"accept": "text/event-stream"},
        text="",
        counters=Counters(
            path="/v1/engine",
            running=("running", "queued"),
            tokens=("tokens",),
            wrong=("misbehaviours", "quarantined"),
        ),
    ),
    "openai": Profile(
        path="/v1/chat/completions",
        json=_CHAT,
        text="choices.0.delta.content",
        models="/v1/models",
    ),
    "vllm": Profile(
        path="/v1/completions",
        # An answer that ends by itself is no evidence that a server stopped.
        json={**_COMPLETION, "ignore_eos": True},
        text="choices.0.text",
        counters=Counters(
            path="/metrics",
            running=("vllm:num_requests_running", "vllm:num_requests_waiting"),
            tokens=("vllm:generation_tokens_total",),
        ),
        models="/v1/models",
    ),
    "sglang": Profile(
        path="/v1/completions",
        json={**_COMPLETION, "ignore_eos": True},
        text="choices.0.text",
        counters=Counters(
            path="/metrics",  # with --enable-metrics
            running=("sglang:num_running_reqs", "sglang:num_queue_reqs"),
            tokens=("sglang:generation_tokens_total",),
        ),
        models="/v1/models",
    ),
}


def fill(template: object, values: Mapping[str, str | int]) -> Any:
    """The template with ``{names}`` in its strings filled in."""
    match template:
        case str():
            for name, value in values.items():
                if template == f"{{{name}}}":
                    return value
                template = template.replace(f"{{{name}}}", str(value))
            return template
        case dict():
            inside = cast("dict[str, object]", template)
            return {key: fill(value, values) for key, value in inside.items()}
        case list():
            return [fill(value, values) for value in cast("list[object]", template)]
        case _:
            return template


def names_in(template: object) -> str:
    """The template as text, to see which names it has."""
    return json.dumps(template)


def load_template(file: Path) -> Profile:
    """Read a profile from a JSON file whose keys are those of :class:`Profile`.

    Raises:
        BadTemplate: It cannot be read, or says something that is not known.
    """
    try:
        said: object = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BadTemplate(f"cannot read {file}: {error}") from None
    given = _checked(said, Profile, str(file))
    counters = given.get("counters")
    if counters is not None:
        given["counters"] = _counters(counters, f"{file}: counters")
    return Profile(**given)


def _counters(said: object, where: str) -> Counters:
    given = _checked(said, Counters, where)
    missing = {"path", "running"} - set(given)
    if missing:
        raise BadTemplate(f"{where}: {' and '.join(sorted(missing))} missing")
    for name in ("running", "tokens", "wrong"):
        if isinstance(given.get(name), str):
            given[name] = [given[name]]
    return Counters(**given)


def _checked(said: object, kind: type[Profile | Counters], where: str) -> dict[str, Any]:
    known = [each.name for each in fields(kind)]
    if not isinstance(said, dict):
        raise BadTemplate(f"{where}: expected a JSON object with {', '.join(known)}")
    given = cast("dict[str, Any]", said)
    for name in given:
        if name not in known:
            raise BadTemplate(f"{where}: {name!r} is not one of {', '.join(known)}")
    return dict(given)
