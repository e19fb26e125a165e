"""LitServe as its manual has it, streaming and not; what its work does is counted beside it.

The work is in a process of its own, hence the counters in a file that both map. LitServe reads the
signatures, hence no annotations.
"""

import mmap
import os
import sys
import time
from pathlib import Path

import litserve

STEP = 0.005  # seconds for each word
COUNTERS = Path(os.environ["KNOWN_FAULTS_COUNTERS"])


def counters():
    """Two numbers, of every process that asks: what runs, and the words that were made."""
    with COUNTERS.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 16)).cast("q")


class Words(litserve.LitAPI):
    def setup(self, device):
        self.counters = counters()

    def decode_request(self, request):
        return int(request["words"])

    def say(self, count):
        self.counters[0] += 1
        try:
            for number in range(count):
                time.sleep(STEP)
                self.counters[1] += 1
                yield f"{number} "
        finally:
            self.counters[0] -= 1


class Streaming(Words):
    def predict(self, count):
        yield from self.say(count)

    def encode_response(self, output):
        yield from output


class Plain(Words):
    def predict(self, count):
        return "".join(self.say(count))

    def encode_response(self, output):
        return {"text": output}


if __name__ == "__main__":
    api = (
        Streaming(stream=True, api_path="/ask")
        if sys.argv[2] == "streaming"
        else Plain(api_path="/ask")
    )
    server = litserve.LitServer(api, accelerator="cpu", timeout=False)

    @server.app.get("/stats")
    async def stats():
        running, made = counters()
        return {"running": running, "made": made}

    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="error",
        access_log=False, num_api_servers=1,
    )  # fmt: skip
