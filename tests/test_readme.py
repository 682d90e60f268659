"""The README is true: its code runs and prints what it says, its lists are whole."""

from __future__ import annotations

import asyncio
import inspect
import pydoc
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.command import STRICT, Command

import rawsse
from rawsse.cli import _parser
from rawsse.client.blocking import BlockingConversation
from rawsse.relay.ledger import usage
from rawsse.relay.users import UserFile
from rawsse.replay import ReplayServer, shipped_fixtures
from rawsse.server import Server

pytest_plugins = ["pytester"]

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
ALL_BLOCKS = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", TEXT, re.DOTALL)
BLOCKS = [(code, output) for code, output in ALL_BLOCKS if not re.search("import (pytest|FastAPI)", code)]
APPS = [code for code, _ in ALL_BLOCKS if "import FastAPI" in code]
TESTS = [code for code, _ in ALL_BLOCKS if "import pytest" in code]

# Somebody's own code, as `my_bot`: it believes in no answer that has no end.
BOT = """
import json, os, urllib.request

def ask(question):
    body = {"model": "m", "max_tokens": 100, "stream": True, "messages": [{"role": "user", "content": question}]}
    url = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode())) as answer:
        lines = [json.loads(line[6:]) for line in answer if line.startswith(b"data: ")]
    assert lines[-1]["type"] == "message_stop"
    return "".join(event["delta"].get("text", "") for event in lines if event["type"] == "content_block_delta")
"""


@pytest.fixture(scope="module", autouse=True)
def running() -> Iterator[list[Command]]:
    """The code blocks run beside the other tests: a client among them waits, in real time, before it asks again."""
    with ExitStack() as stack:
        yield [stack.enter_context(Command(program=("-c", code), flags=STRICT)) for code, _ in BLOCKS]


@pytest.mark.real
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_application_in_the_readme_has_users_limits_and_a_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi", reason="an application that is not ours: the interop extra")
    httpx = pytest.importorskip("httpx", reason="a client that is not ours: the interop extra")
    (code,) = APPS
    assert len(code.splitlines()) <= 30
    monkeypatch.chdir(tmp_path)

    async def story() -> None:
        async with ReplayServer(shipped_fixtures()["plain"], speed=0) as api:
            monkeypatch.setenv("ANTHROPIC_BASE_URL", api.base_url)
            monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-key")
            names: dict[str, Any] = {}
            exec(code, names)
            async with Server(names["app"], port=0) as server, httpx.AsyncClient(base_url=server.base_url) as client:
                path, body = "/claude/chat/stream", {"message": "Hello"}
                assert (await client.post(path, json=body)).status_code == 401
                ada = {"cookie": "session=3f6a"}
                begun = time.monotonic()
                asked = (client.post(path, json=body, headers=ada) for _ in range(30))
                statuses = [answer.status_code for answer in await asyncio.gather(*asked)]
                back = int((time.monotonic() - begun) / 3)  # 20 requests per minute
                assert 20 <= statuses.count(200) <= 20 + back
                assert set(statuses) == {200, 429}
                elsewhere = await client.post(path, json=body, headers=ada | {"origin": "https://evil.example"})
                assert elsewhere.status_code == 403
                assert len(api.requests) == statuses.count(200)
            await names["relay"].client.close()
            names["relay"].ledger.close()

    asyncio.run(story())
    (row,) = usage([tmp_path / "ledger.db"], by=("user",))
    assert row["user"] == "ada"
    assert row["runs"] >= 20


def test_the_tests_in_the_readme_are_green(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.syspathinsert()
    pytester.makepyfile(my_bot=BOT, **{f"test_{number}": code for number, code in enumerate(TESTS)})
    result = pytester.runpytest_inprocess("-p", "rawsse.replay.pytest_plugin", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=2)


def test_the_first_code_ends_before_line_30() -> None:
    assert TEXT[: TEXT.index(BLOCKS[0][0]) + len(BLOCKS[0][0])].count("\n") < 30


def test_the_users_in_the_readme_can_be_read(tmp_path: Path) -> None:
    (toml,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "users.toml").write_text(toml)
    user = UserFile(tmp_path / "users.toml").find_token({"authorization": "Bearer foo"})
    assert user is not None
    assert user.limits is not None
    assert (user.id, user.limits.requests_per_minute, user.limits.tokens_per_day) == ("ada", 60, 200_000)


def test_no_line_of_code_is_wider_than_a_page() -> None:
    blocks = re.findall(r"```(?:python|sh|toml|text)\n(.*?)```", TEXT, re.DOTALL)
    assert [line for block in blocks for line in block.splitlines() if len(line) > 92] == []


def test_every_link_in_the_readme_leads_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", line[3:]).lower().replace(" ", "-") for line in TEXT.splitlines() if line[:3] == "## "
    }
    links = re.findall(r"\]\(([^)]+)\)|(?:src|srcset)=\"([^\"]+)\"", TEXT)
    assert len(links) > 10
    for link in (file or picture for file, picture in links):
        assert link[1:] in headings if link[0] == "#" else (README.parent / link).is_file(), link


def test_every_exported_name_is_in_the_readme() -> None:
    assert [name for name in rawsse.__all__ if f"`{name}`" not in TEXT] == []


@pytest.mark.parametrize("name", rawsse.__all__)
def test_every_exported_name_has_a_page_with_its_docstring(name: str) -> None:
    page = pydoc.plain(pydoc.render_doc(f"rawsse.{name}"))
    first = (inspect.getdoc(getattr(rawsse, name)) or "").partition("\n")[0]
    assert first
    assert first in page


@pytest.mark.parametrize(
    ("kind", "place"), [(rawsse.Conversation, "rawsse"), (BlockingConversation, "rawsse.client.blocking")]
)
def test_what_a_conversation_gives_has_a_page(kind: Any, place: str) -> None:
    assert pydoc.locate(f"{place}.{inspect.signature(kind.stream).return_annotation}")


def test_every_command_is_in_the_readme() -> None:
    names = re.findall(r"^    (\w+)  ", _parser().format_help(), re.MULTILINE)
    assert "demo" in names
    assert [name for name in names if f"`rawsse {name}" not in TEXT] == []


def test_the_readme_has_the_length_of_a_readme() -> None:
    assert 100 <= TEXT.count("\n") <= 265


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_code_block_runs_and_prints_what_the_readme_says(number: int, running: list[Command]) -> None:
    said, output = running[number].output(), BLOCKS[number][1]
    assert running[number].complaint() == ""
    if output:
        assert said == output
