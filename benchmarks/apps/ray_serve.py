"""Ray Serve: one deployment behind its proxy, in a cluster of this machine alone."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

VARIABLES = ("BENCH_BOOK", "PYTHONPATH")


@serve.deployment(max_ongoing_requests=100_000)
class Deployment:
    async def __call__(self, request: Request) -> Response:
        from benchmarks.apps import source  # noqa: PLC0415 - in the replica, not in the proxy

        asked = await request.json()
        shape, row, n = asked["shape"], asked["row"], asked["n"]
        if shape == "predict":
            return JSONResponse({"doubled": 2 * n})
        if shape in source.CALLS:
            return JSONResponse({"text": await source.CALLS[shape](row, n)})
        return StreamingResponse(source.STREAMS[shape](row, n), media_type="text/plain")


def main(port: str) -> None:
    variables = {name: os.environ[name] for name in VARIABLES}
    ray.init(
        include_dashboard=False, num_cpus=2, _temp_dir=str(Path.cwd()), logging_level="error",
        runtime_env={"env_vars": variables}, _node_ip_address="127.0.0.1",
    )  # fmt: skip
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    serve.run(Deployment.bind(), route_prefix="/")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])
