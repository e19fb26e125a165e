"""A model with a worker process of its own."""

import multiprocessing
import threading


def work() -> None:
    threading.Event().wait(600)


class Model:
    def __init__(self) -> None:
        self.context = multiprocessing.get_context("fork")

    def predict(self, inputs: str) -> bool:
        worker = self.context.Process(target=work, daemon=True)
        worker.start()
        if inputs == "leave":  # nobody ends it
            return True
        worker.terminate()
        worker.join(5)
        ended = not worker.is_alive()
        worker.kill()
        return ended
