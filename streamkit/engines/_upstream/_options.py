"""An upstream's options: where it is, how it is asked, and how it is proved to have stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import urlsplit

from streamkit.engines._options import TEXT, Option, Real, Switch, Whole, Words

PROOFS: Final = ("closed", "canary", "streamkit")
# vLLM's names for a request of ours; it takes ids that it does not know in silence.
ABORT_BODY: Final = '{"request_ids": ["cmpl-{id}-0", "chatcmpl-{id}"]}'


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(text)
    return text


def parse_object(text: str) -> dict[str, Any]:
    """Return the JSON object that a text is; ValueError when it is none."""
    value: object = json.loads(text)
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    raise ValueError(text)


def filled(template: str, request_id: str) -> dict[str, Any]:
    """Return the object of a template, for one request."""
    return parse_object(template.replace("{id}", request_id))


def _proof(text: str) -> str:
    if text not in PROOFS:
        raise ValueError(text)
    return text


_URL: Final = Words("a URL that begins with http:// or https://", _url)
_PROOF: Final = Words(f"one of {', '.join(PROOFS)}", _proof)
_OBJECT: Final = Words("a JSON object", parse_object)

OPTIONS: Final[Mapping[str, Option]] = {
    option.name: option
    for option in (
        Option("base_url", _URL, None, "where its API is, with /v1; it has to be given"),
        Option("model", TEXT, None, "the model to ask for; off takes the only one that it has"),
        Option("api_key", TEXT, None, "sent as a bearer token"),
        Option("slots", Whole(1, 100_000), 64, "requests that it is sent at once; others wait"),
        Option("proof", _PROOF, "closed", "what proves a stop"),
        Option("abort_url", _URL, None, "where an abort is posted after a close; {id} is the id"),
        Option("abort_body", _OBJECT, ABORT_BODY, "the JSON that is posted there"),
        Option("extra_body", _OBJECT, "{}", "JSON added to each request; {id} is its id"),
        Option("connect_timeout", Real(0.01, 3600), 5.0, "seconds that a connection may take"),
        Option("read_timeout", Real(0.01, 86_400), 300.0, "seconds that it may be silent"),
        Option("trust_env", Switch(), False, "whether proxies are taken from the environment"),
    )
}
