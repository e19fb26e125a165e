"""The example of Truss's documentation on request objects, as it stands there."""

import fastapi, asyncio, logging  # noqa: E401, I001


class Model:
    async def predict(self, inputs, request: fastapi.Request):
        await asyncio.sleep(1)  # noqa: TID251
        if await request.is_disconnected():
            logging.warning("Cancelled (before gen).")  # noqa: LOG015
            # Cancel the request on the model engine here.
            return
        for i in range(5):
            await asyncio.sleep(1.0)  # noqa: TID251
            logging.warning(i)  # noqa: LOG015
            yield str(i)
            if await request.is_disconnected():
                logging.warning("Cancelled (during gen).")  # noqa: LOG015
                # Cancel the request on the model engine here.
                return
