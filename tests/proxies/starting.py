"""A real proxy in front of a server, on loopback, with a few lines of its own configuration.

Nothing is installed here, and no proxy that runs on this machine already is touched.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

LIMIT = 10.0  # real seconds
TRIES = 500
NGINX = """\
{user}
daemon off;
master_process off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/errors;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            {lines}
        }}
    }}
}}
"""
HAPROXY = """\
defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s
    {lines}
frontend clients
    bind 127.0.0.1:{port}
    default_backend servers
backend servers
    {backend}
    server one 127.0.0.1:{upstream}
"""
CADDY = """\
{{
    admin off
    auto_https off
}}
http://127.0.0.1:{port} {{
    bind 127.0.0.1
    {site}
    reverse_proxy 127.0.0.1:{upstream} {{
        {lines}
    }}
}}
"""
TEMPLATES = {"nginx": NGINX, "haproxy": HAPROXY, "caddy": CADDY}
COMMANDS = {
    "nginx": ("nginx", "-p", "{folder}", "-c", "{file}"),
    "haproxy": ("haproxy", "-db", "-f", "{file}"),
    "caddy": ("caddy", "run", "--config", "{file}", "--adapter", "caddyfile"),
}
VERSIONS = {"nginx": ("nginx", "-v"), "haproxy": ("haproxy", "-v"), "caddy": ("caddy", "version")}
PACKAGES = {"nginx": "nginx-light", "haproxy": "haproxy", "caddy": "caddy"}
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # Debian has servers there


def installed(kind: str) -> bool:
    return shutil.which(kind, path=PATH) is not None


def version(kind: str) -> str:
    """The first number that looks like one, of what it says of itself."""
    said = subprocess.run(VERSIONS[kind], capture_output=True, text=True, check=True, env=_env("/"))
    found = re.search(r"\d+\.\d+[.\d]*", said.stdout + said.stderr)
    return found[0] if found else "?"


@contextmanager
def proxy(kind: str, upstream: str, lines: Mapping[str, str]) -> Iterator[str]:
    """Run it in front of the server at the URL ``upstream``, with these lines; gives its URL."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "configuration")
        given = {"lines": "", "backend": "", "site": "", **lines}
        given |= {"port": str(port), "upstream": upstream.rpartition(":")[2], "folder": folder}
        # Its workers would be nobody's, who may not write into our folder.
        given["user"] = "user root;" if os.geteuid() == 0 else ""
        given = {name: value.replace("{folder}", folder) for name, value in given.items()}
        file.write_text(TEMPLATES[kind].format(**given))
        command = [part.format(folder=folder, file=file) for part in COMMANDS[kind]]
        with Path(folder, "log").open("w+") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=_env(folder))
            try:
                _wait_for(port, process, Path(folder, "log"))
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()
                process.wait(LIMIT)


def _env(home: str) -> dict[str, str]:
    return {"PATH": PATH, "HOME": home, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(TRIES):  # proxies tell nobody when they listen
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(LIMIT / TRIES)
            break
    raise RuntimeError(f"it does not listen: {log.read_text()}")
