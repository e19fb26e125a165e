"""The load: plain sockets, nothing parsed while the clock runs.

A download keeps what it read and looks at it afterwards, so that a run counts only when every byte
of every token has come.
"""

from __future__ import annotations

import itertools
import re
import resource
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from benchmarks.apps.tokens import TOKEN

READ = 1 << 18
TIMEOUT = 60.0
SOURCES = [f"127.0.0.{number}" for number in range(2, 12)]  # each has its own 28,000 ports
_source = itertools.cycle(SOURCES)
# Linux: choose the port in connect(), when both ends are known. Python 3.12 has the name.
BIND_ADDRESS_NO_PORT = 24


@dataclass
class Download:
    """What one or several streams gave.

    Attributes:
        seconds: From before the requests to the last byte.
        client: Share of a core that reading took.
        tokens: Whole ones, of all streams together.
        size: Bytes, with heads and framing.
    """

    seconds: float
    client: float
    tokens: int
    size: int


def raise_file_limit() -> int:
    """As many files as allowed, here and in all processes started from here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def connect(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.bind((next(_source), 0))
    sock.settimeout(TIMEOUT)
    sock.connect(("127.0.0.1", port))
    return sock


def encode(target: str, body: bytes | None = None, *, keep: bool = False) -> bytes:
    """A request. Without ``keep`` the server ends the connection after its answer."""
    method = "GET" if body is None else "POST"
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    if not keep:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def open_request(port: int, request: bytes) -> socket.socket:
    sock = connect(port)
    sock.sendall(request)
    return sock


def download(port: int, requests: Sequence[bytes]) -> Download:
    """Send each request on a connection of its own and read all answers to their ends."""
    socks = {(sock := connect(port)).fileno(): sock for _ in requests}
    parts: dict[int, list[bytes]] = {number: [] for number in socks}
    began, cpu = time.perf_counter(), time.process_time()
    for sock, request in zip(socks.values(), requests, strict=True):
        sock.sendall(request)
    read_all(socks, parts)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    for sock in socks.values():
        sock.close()
    bodies = [b"".join(pieces) for pieces in parts.values()]
    return Download(seconds, cpu / seconds, sum(map(tokens_in, bodies)), sum(map(len, bodies)))


def read_all(socks: dict[int, socket.socket], parts: dict[int, list[bytes]]) -> None:
    if len(socks) == 1:  # no poll before each read
        ((number, sock),) = socks.items()
        while data := sock.recv(READ):
            parts[number].append(data)
        return
    poll = select.epoll()
    for number in socks:
        poll.register(number, select.EPOLLIN)
    left = len(socks)
    while left:
        if not (ready := poll.poll(TIMEOUT)):
            raise TimeoutError(f"{left} streams gave nothing for {TIMEOUT:g} s")
        for number, _ in ready:
            if data := socks[number].recv(READ):
                parts[number].append(data)
            else:
                poll.unregister(number)
                left -= 1
    poll.close()


def tokens_in(answer: bytes) -> int:
    """Whole tokens of an answer.

    Raises:
        ValueError: It is no success, or its end is missing.
    """
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise ValueError(f"the server answered {answer[:300]!r}")
    if b"chunked" in head.lower():
        body = dechunked(body)
    return body.count(TOKEN.encode())


def dechunked(body: bytes) -> bytes:
    """The body without its chunks' sizes."""
    pieces: list[bytes] = []
    at = 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end], 16)
        if not size:
            return b"".join(pieces)
        pieces.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


def read_first(sock: socket.socket) -> None:
    """Return when the first token is here."""
    seen = b""
    token = TOKEN.encode()
    while token not in seen:
        if not (data := sock.recv(READ)):
            raise ValueError(f"the stream ended without a token: {seen[:300]!r}")
        seen += data


def leave(sock: socket.socket) -> float:
    """Close it with a FIN; return the instant before."""
    sock.setblocking(False)
    with suppress(BlockingIOError):
        sock.recv(READ)  # what is not read makes the kernel send RST
    at = time.monotonic()
    sock.close()
    return at


@dataclass
class Calls:
    """What many short requests took.

    Attributes:
        seconds: All of them together.
        latencies: Each, in seconds.
        client: Share of a core that sending and reading took.
    """

    seconds: float
    latencies: list[float]
    client: float


def call(port: int, request: bytes, count: int, connections: int = 1) -> Calls:
    """Send ``request`` over and over, on connections that are kept.

    All answers have to be as long as the first one, so that none has to be parsed.
    """
    with ExitStack() as opened:
        socks = [opened.enter_context(connect(port)) for _ in range(connections)]
        size = len(_whole_answer(socks[0], request))
        began, cpu = time.perf_counter(), time.process_time()
        latencies = (_take_turns if connections > 1 else _one_by_one)(socks, request, size, count)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return Calls(seconds, latencies, cpu / seconds)


def _one_by_one(socks: list[socket.socket], request: bytes, size: int, count: int) -> list[float]:
    (sock,) = socks
    latencies: list[float] = []
    for _ in range(count):
        sent = time.perf_counter()
        sock.sendall(request)
        got = len(sock.recv(READ))
        while got < size:
            got += len(sock.recv(READ))
        latencies.append(time.perf_counter() - sent)
        _check_size(got, size)
    return latencies


def _take_turns(socks: list[socket.socket], request: bytes, size: int, count: int) -> list[float]:
    by_number = {sock.fileno(): sock for sock in socks}
    got = dict.fromkeys(by_number, 0)
    sent = dict.fromkeys(by_number, 0.0)
    latencies: list[float] = []
    with select.epoll() as poll:
        for number, sock in by_number.items():
            poll.register(number, select.EPOLLIN)
            sent[number] = time.perf_counter()
            sock.sendall(request)
        for number in _answering(poll):
            got[number] += len(by_number[number].recv(READ))
            if got[number] < size:
                continue
            _check_size(got[number], size)
            now = time.perf_counter()
            latencies.append(now - sent[number])
            if len(latencies) == count:
                break
            got[number], sent[number] = 0, now
            by_number[number].sendall(request)
    return latencies


def _answering(poll: select.epoll) -> Iterator[int]:
    """The sockets on which something comes, one after the other."""
    while ready := poll.poll(TIMEOUT):
        yield from (number for number, _ in ready)
    raise TimeoutError(f"no answer in {TIMEOUT:g} s")


def _whole_answer(sock: socket.socket, request: bytes) -> bytes:
    sock.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += sock.recv(READ)
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise ValueError(f"the server answered {answer[:300]!r}")
    length = int(re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)[1])
    while len(body) < length:
        body += sock.recv(READ)
    return head + b"\r\n\r\n" + body


def _check_size(got: int, size: int) -> None:
    if got != size:
        raise ValueError(f"an answer of {got} bytes, where the first one had {size}")
