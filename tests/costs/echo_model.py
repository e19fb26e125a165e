"""A model class that does nothing, so that what is counted is what runs it."""


class Model:
    async def predict(self, inputs):
        return inputs


class SyncModel:
    def predict(self, inputs):
        return inputs


class StreamingModel:
    async def predict(self, inputs):
        for _ in range(inputs["tokens"]):
            yield "tok "
