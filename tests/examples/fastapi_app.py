"""FastAPI with a login of its own and a tool: the answers of the tool loop as server-sent events, with resume and stop.

pip install rawsse fastapi uvicorn
uvicorn fastapi_app:app
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Body, FastAPI, HTTPException, Request, Response

from rawsse import AsyncClient, tool
from rawsse.relay import EventRuns, event_source
from rawsse.server import Scope

USERS = {"ada": "correct horse"}  # yours: a database, with hashes
sessions: dict[str, str] = {}  # cookie -> user
client = AsyncClient()


async def who(scope: Scope) -> str | None:
    """The user of a request; None is answered 401."""
    return sessions.get(Request(scope).cookies.get("session", ""))


runs = EventRuns(authenticate=who)  # a run belongs to the user who began it


@tool
async def get_weather(place: str, unit: str = "celsius") -> str:
    """The weather at a place, now."""
    return f"rain in {place}, 11 degrees {unit}"  # yours: ask a service


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await runs.aclose()
    await client.close()


app = FastAPI(lifespan=lifespan)
app.mount("/runs", runs)  # GET /runs/{id} reads on after a lost connection, DELETE /runs/{id} stops the model


@app.post("/login")
async def login(name: Annotated[str, Body()], password: Annotated[str, Body()], response: Response) -> None:
    if not password or not secrets.compare_digest(USERS.get(name, "").encode(), password.encode()):
        raise HTTPException(401)
    session = secrets.token_urlsafe()
    sessions[session] = name
    response.set_cookie("session", session, httponly=True, samesite="strict")


@app.post("/ask")
async def ask(question: Annotated[str, Body(embed=True)]) -> Any:
    return event_source(answer(question), runs)


async def answer(question: str) -> AsyncIterator[dict[str, str]]:
    """Ask, run the tool if the model calls it, ask again: one event for each piece of text."""
    messages = [{"role": "user", "content": question}]
    async with client.messages.tool_runner(
        model="claude-sonnet-5", max_tokens=1024, messages=messages, tools=[get_weather]
    ) as runner:
        async for text in runner.text_stream:
            yield {"text": text}
