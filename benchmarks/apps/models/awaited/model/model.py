"""A model class whose predict is a coroutine; the same file runs under us and under Truss."""

from benchmarks.apps import source


class Model:
    async def predict(self, inputs):
        shape, row = inputs["shape"], inputs["row"]
        if shape == "predict":
            return {"doubled": 2 * inputs["n"]}
        if shape in source.CALLS:
            return {"text": await source.CALLS[shape](row)}
        return source.STREAMS[shape](row, inputs["n"])
