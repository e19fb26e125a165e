"""The example of Truss's documentation, as it stands there: the model asks if its client left."""

# ruff: noqa: E401, I001, LOG015, TID251 - none of it is ours

import fastapi, asyncio, logging


class Model:
    async def predict(self, inputs, request: fastapi.Request):
        await asyncio.sleep(1)
        if await request.is_disconnected():
            logging.warning("Cancelled (before gen).")
            # Cancel the request on the model engine here.
            return

        for i in range(5):
            await asyncio.sleep(1.0)
            logging.warning(i)
            yield str(i)
            if await request.is_disconnected():
                logging.warning("Cancelled (during gen).")
                # Cancel the request on the model engine here.
                return
