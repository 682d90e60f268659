"""A node of the crash suite: a relay in a process, with its options as JSON in the only argument."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from rawsse import AsyncClient
from rawsse.relay import Ledger, Relay
from rawsse.relay.redis_store import RedisStore
from rawsse.server import serve


async def main(
    port: int,
    base_url: str,
    redis: str,
    ledger: str,
    lease: float,
    block: float,
    heartbeat: float,
    batch: float,
    drain: float,
) -> None:
    lag = asyncio.create_task(tell_lag())
    store = RedisStore(redis, lease_seconds=lease, block_seconds=block)
    rows = Ledger(ledger, batch_seconds=batch)
    options: dict[str, Any] = {
        "ledger": rows,
        "store": store,
        "heartbeat_seconds": heartbeat,
        "shutdown_seconds": drain,
    }
    try:
        async with AsyncClient(api_key="not-a-key", base_url=base_url) as client:
            relay = Relay(client, **options)
            await serve(relay, "127.0.0.1", port, drain=relay.drain, on_shutdown=relay.aclose)
    finally:
        lag.cancel()
        rows.close()
        await store.aclose()


async def tell_lag() -> None:
    """Log how late this process gets the CPU: what is promised is promised for a machine that has time."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + 0.05
        await asyncio.sleep(0.05)
        if (late := loop.time() - due) > 0.05:
            logging.info("lag %.3f", late)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s.%(msecs)03d %(message)s", datefmt="%H:%M:%S")
    asyncio.run(main(**json.loads(sys.argv[1])))
