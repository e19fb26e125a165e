"""LitServe: two of its APIs, one that streams and one that does not, both with coroutines.

Their work runs in a process of its own, to which requests go through a queue. LitServe reads the
signatures, hence no annotations.
"""

import sys

import litserve

from benchmarks.apps import source


class Plain(litserve.LitAPI):
    def setup(self, device):
        pass

    async def decode_request(self, request):
        return request

    async def predict(self, inputs):
        if inputs["shape"] == "predict":
            return {"doubled": 2 * inputs["n"]}
        return {"text": await source.CALLS[inputs["shape"]](inputs["row"], inputs["n"])}

    async def encode_response(self, output):
        return output


class Streaming(litserve.LitAPI):
    def setup(self, device):
        pass

    async def decode_request(self, request):
        return request

    async def predict(self, inputs):
        async for token in source.STREAMS[inputs["shape"]](inputs["row"], inputs["n"]):
            yield token

    async def encode_response(self, output):
        async for token in output:
            yield token


if __name__ == "__main__":
    apis = [
        Plain(enable_async=True, api_path="/predict"),
        Streaming(enable_async=True, stream=True, api_path="/stream"),
    ]
    server = litserve.LitServer(apis, accelerator="cpu", timeout=False)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="error",
        access_log=False,
    )  # fmt: skip
