"""A model class whose predict is a coroutine; the same file runs under us and under Truss."""

from benchmarks.apps import source


class Model:
    async def predict(self, inputs):
        shape, row, n = inputs["shape"], inputs["row"], inputs["n"]
        if shape == "predict":
            return {"doubled": 2 * n}
        if shape in source.CALLS:
            return {"text": await source.CALLS[shape](row, n)}
        return source.STREAMS[shape](row, n)
