"""The trivially fast server: answers that are ready-made, a hundred tokens to a send.

It is no contender. What the load generator reads from it is what it can read at all.
"""

from __future__ import annotations

import socketserver
import sys
from urllib.parse import parse_qsl, urlsplit

from benchmarks.apps.tokens import TOKEN, framed

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = framed(TOKEN).encode()
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
TOGETHER = 100


class Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            if not (data := self.request.recv(1 << 16)):
                return  # somebody looks whether we are there
            request += data
        target = request.split(b" ", 2)[1].decode()
        n = int(dict(parse_qsl(urlsplit(target).query))["n"])
        self.request.sendall(HEAD)
        for _ in range(n // TOGETHER):
            self.request.sendall(CHUNK * TOGETHER)
        self.request.sendall(CHUNK * (n % TOGETHER) + b"0\r\n\r\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 128


if __name__ == "__main__":
    with Server(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        server.serve_forever()
