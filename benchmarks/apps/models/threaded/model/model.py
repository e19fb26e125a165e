"""A model class whose predict is a plain function; the same file runs under us and under Truss."""

from benchmarks.apps import source


class Model:
    def predict(self, inputs):
        shape = inputs["shape"]
        if shape == "predict_sync":
            return {"doubled": 2 * inputs["n"]}
        return source.SYNC_STREAMS[shape](inputs["row"], inputs["n"])
