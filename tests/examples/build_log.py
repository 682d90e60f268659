"""`event_source` for a stream that has nothing to do with Claude: the lines of a build, as they are printed.

pip install rawsse fastapi uvicorn
uvicorn build_log:app

curl -N -X POST http://127.0.0.1:8000/build             # each event has an id, and the header x-run-id names the run
curl -N http://127.0.0.1:8000/runs/RUN_ID -H "last-event-id: ID"      # another reader, or the same one again
curl -X DELETE http://127.0.0.1:8000/runs/RUN_ID        # stops the build
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from rawsse.relay import EventRuns, event_source
from rawsse.sse import Event

COMMAND = [sys.executable, "-u", "-c", "for step in range(1, 4): print('step', step, 'of 3')"]  # yours: make, npm …

runs = EventRuns()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await runs.aclose()  # closes the generators, which kill their builds


app = FastAPI(lifespan=lifespan)
app.mount("/runs", runs)


@app.post("/build")
async def build() -> Any:
    return event_source(lines_of(COMMAND), runs)


async def lines_of(command: list[str]) -> AsyncIterator[Event]:
    """Its output, line by line, and its exit code. The build runs on while a reader is away, for ten seconds at most."""
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT)
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            yield Event("line", line.decode(errors="replace").rstrip("\r\n"))
        yield Event("exit", str(await process.wait()))
    finally:  # also when the run was stopped, or all readers have gone
        if process.returncode is None:
            process.kill()
            await process.wait()
