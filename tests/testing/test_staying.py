"""Whoever stays reads on, and hears what became of that."""

import anyio
import pytest

from streamkit.testing._faults._staying import read_while


async def test_what_reading_met_ends_the_stay_and_is_raised() -> None:
    async def read() -> None:
        await anyio.sleep(1)
        raise ConnectionResetError("reset")

    with pytest.raises(ConnectionResetError, match="reset"):
        await read_while(anyio.sleep_forever, read)


async def test_the_end_of_the_stay_ends_the_reading() -> None:
    await read_while(lambda: anyio.sleep(1), anyio.sleep_forever)
