"""What commands that are pointed at a server have in common: where, what, whom to believe."""

from __future__ import annotations

import argparse
import ipaddress
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from ._profiles import PROFILES, Profile, load_template
from ._target import Target


class Misuse(Exception):
    """The command line asks for what will not be done; the message says why."""


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """The options that say what the server is asked, and how it is reached."""
    add = parser.add_argument
    add("--target-profile", choices=PROFILES, help="what is asked, and where the counters are")
    add("--request-template", type=Path, metavar="FILE", help="the same, for any other server")
    add("--model", metavar="NAME", help="the model to ask for, if not the first that is listed")
    add("--header", action="append", default=[], metavar="NAME:VALUE", help="sent along")
    add("--timeout", type=seconds, default=30.0, metavar="S", help="of each wait [30]")
    add("--insecure", action="store_true", help="believe any certificate")
    add("--i-own-this-server", action="store_true", help="it is not on this machine, and mine")


def _check_url(url: str, *, own: bool) -> None:
    """Raise Misuse for what is no URL, or another machine's that nobody said is theirs."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not _has_port(parts):
        raise Misuse(f"{url!r} is not http://HOST:PORT or https://HOST:PORT")
    if not own and not is_loopback(parts.hostname):
        raise Misuse(
            f"{parts.hostname} is not this machine. This drops connections and loads the server "
            "it is pointed at; if it is yours, say --i-own-this-server"
        )


def _has_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:  # no number, or none that a port has
        return False


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, without asking anybody."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def targets_of(
    given: argparse.Namespace, urls: Sequence[str], *, seed: int = 0
) -> Sequence[Target]:
    """Each URL as a server that is asked as the options say.

    Raises:
        Misuse: One is no URL, or another machine's; or the options contradict each other.
        BadTemplate: The request template cannot be used.
    """
    for url in urls:
        _check_url(url, own=given.i_own_this_server)
    profile, headers, tls = _profile_of(given), _headers_of(given.header), _tls_of(given)
    return [
        Target(url, profile, seed=seed, timeout=given.timeout, headers=headers, tls=tls)
        for url in urls
    ]


def _profile_of(given: argparse.Namespace) -> Profile:
    """What kind of server the options name.

    Raises:
        Misuse: They name two.
        BadTemplate: The request template cannot be used.
    """
    if given.request_template and given.target_profile:
        raise Misuse("give --target-profile or --request-template, not both")
    if given.request_template:
        return load_template(given.request_template)
    return PROFILES[given.target_profile or "streamkit"]


def _tls_of(given: argparse.Namespace) -> ssl.SSLContext | None:
    """What to believe of certificates; None: what this machine believes."""
    if not given.insecure:
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _headers_of(lines: Sequence[str]) -> Mapping[str, str]:
    """The headers that are sent along; raises Misuse for what is none."""
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise Misuse(f"--header takes NAME:VALUE, got {line!r}")
        headers[name.strip().lower()] = value.strip()
    return headers


def count(text: str) -> int:
    """A number from 1 to 10,000, for argparse."""
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 10000, got {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """Seconds above 0 and up to a day, for argparse."""
    try:
        given = float(text)
    except ValueError:
        given = 0.0
    if not 0 < given <= 86_400:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text!r}")
    return given
