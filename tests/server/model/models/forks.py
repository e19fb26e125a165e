"""A model with a worker process of its own."""

import multiprocessing
import os
import threading


def work() -> None:
    threading.Event().wait(600)


class Model:
    def __init__(self) -> None:
        self.context = multiprocessing.get_context("fork")

    def predict(self, inputs: str) -> bool:
        if inputs == "leave":  # behind multiprocessing's back, and nobody ends it
            if os.fork() == 0:
                work()
            return True
        worker = self.context.Process(target=work, daemon=True)
        worker.start()
        if inputs == "keep":
            return True
        worker.terminate()
        worker.join(5)
        ended = not worker.is_alive()
        worker.kill()
        return ended
