"""The official Python SDK's own examples, with their imports changed to `import rawsse as anthropic` and nothing else.

Each is run twice, as it was published and on rawsse, against the same recordings. It must print the same and ask the same;
the table in `sdk_examples.py` names what differs, and which examples are left out and why.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.background import Background
from support.command import environment
from support.streams import Raw, to_bytes

import rawsse.types
from rawsse.client.output import strict_schema
from rawsse.messages import Message, read_partial
from rawsse.replay import PlayedRequest, Player, Read, Recording
from rawsse.server import Server

from .sdk_examples import EXAMPLES, LEFT_OUT, Example, as_it_is, asked, json_as_values, models_alike, on_rawsse
from .stack import FIXTURES, message, recorded

pytestmark = pytest.mark.real

FOLDER = os.environ.get("RAWSSE_SDK_EXAMPLES")

PLAIN_PRINT = '"""Stands in for the package `rich`."""\n\nfrom builtins import print as print\n'

Run = tuple[str, list[PlayedRequest]]


@pytest.fixture(scope="module")
def examples() -> Path:
    """The folder of the published examples."""
    pytest.importorskip("anthropic", reason="the official SDK: the interop extra")
    if not FOLDER:
        pytest.skip("RAWSSE_SDK_EXAMPLES does not name the folder `examples` of the SDK's source distribution")
    return Path(FOLDER)


def recording(answer: str | list[Raw]) -> Recording:
    if isinstance(answer, str):
        return recorded(answer)
    return Recording(status=200, headers={"content-type": "text/event-stream"}, reads=(Read(0.0, to_bytes(answer)),))


def run(example: Example, program: str, folder: Path) -> Run:
    """What the program prints, and what it asks."""
    folder.mkdir()
    (folder / "rich.py").write_text(PLAIN_PRINT, encoding="utf-8")
    (folder / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n, as far as an upload cares")
    (folder / "program.py").write_text(program, encoding="utf-8")
    with Background() as background:
        player = Player([recording(answer) for answer in example.answers], speed=0.0)
        upstream = background.enter(Server(player, port=0))
        variables = {"ANTHROPIC_BASE_URL": upstream.base_url, "ANTHROPIC_API_KEY": "any", "PYTHONIOENCODING": "utf-8"}
        done = subprocess.run(
            [sys.executable, folder / "program.py"],
            env=environment(variables),
            input=example.typed.encode(),
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode(), player.requests


@pytest.fixture(scope="module")
def both(examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An example as it was published, and on rawsse; each is run once."""
    seen: dict[str, tuple[Run, Run]] = {}

    def both(example: Example) -> tuple[Run, Run]:
        if example.id not in seen:
            program = (examples / f"{example.name}.py").read_text(encoding="utf-8")
            folder = tmp_path_factory.mktemp(example.name)
            seen[example.id] = (
                run(example, program, folder / "sdk"),
                run(example, on_rawsse(program), folder / "rawsse"),
            )
        return seen[example.id]

    return both


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.id for example in EXAMPLES])
def test_an_example_prints_what_it_prints_with_the_sdk(example: Example, both: Any) -> None:
    (theirs, _), (ours, _) = both(example)
    assert theirs.strip()
    assert example.read(ours) == example.read(theirs)


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.id for example in EXAMPLES])
def test_an_example_asks_what_it_asks_with_the_sdk(example: Example, both: Any) -> None:
    theirs, ours = (asked(request.body for request in requests) for _, requests in both(example))
    assert len(theirs) == len(example.answers)
    assert ours == theirs


def test_every_example_of_the_sdk_is_in_the_table_or_left_out_with_a_reason(examples: Path) -> None:
    assert {file.stem for file in examples.glob("*.py")} == {*LEFT_OUT, *(example.name for example in EXAMPLES)}


def test_the_examples_are_those_of_the_sdk_that_is_installed(examples: Path) -> None:
    told = re.search(r"^Version: (\S+)$", (examples.parent / "PKG-INFO").read_text(encoding="utf-8"), re.MULTILINE)
    assert told is not None
    assert told[1] == importlib.metadata.version("anthropic")


# --- The harness itself ----------------------------------------------------------------------------------------------


def test_only_imports_are_changed() -> None:
    program = (
        "import anthropic\nfrom anthropic import X\nfrom anthropic.types.beta import Y\nprint('import anthropic')\n"
    )
    changed = (
        "import rawsse as anthropic\nfrom rawsse import X\nfrom rawsse.types.beta import Y\nprint('import anthropic')\n"
    )
    assert on_rawsse(program) == changed


def test_what_differs_is_said_where_outputs_are_not_compared_to_the_byte() -> None:
    assert [example.id for example in EXAMPLES if (example.read is as_it_is) == bool(example.differs)] == []


def test_json_in_an_output_is_compared_by_its_values() -> None:
    assert json_as_values('Answer: {\n  "b": null,\n  "a": [{"c": null}]\n}\nbye') == ["Answer: ", {"a": [{}]}, "\nbye"]
    assert json_as_values("{x}") == ["{x}"]


def test_models_in_an_output_are_compared_without_their_beta() -> None:
    theirs = "ParsedBetaMessage[~ResponseFormatT](id='1', x=None, y=[BetaTextBlock(z=None, text='Beta')], w=None)"
    ours = "ParsedMessage(id='1', y=[TextBlock(text='Beta')])"
    assert models_alike(theirs) == models_alike(ours) == "Message(id='1', y=[TextBlock(text='Beta')])"


def test_of_what_was_asked_threads_titles_and_streaming_are_not_compared() -> None:
    tool = {"name": "f", "input_schema": {"properties": {"title": {"title": "Title", "type": "string"}}}}
    bodies = [{"thread": {}, "model": "m"}, {"model": "m", "stream": True, "tools": [tool]}]
    plain = {"name": "f", "input_schema": {"properties": {"title": {"type": "string"}}}}
    assert asked(bodies) == [{"model": "m", "tools": [plain]}]


# --- What they rest on, tried more widely ----------------------------------------------------------------------------


def test_a_schema_is_the_one_that_the_sdk_sends() -> None:
    pydantic = pytest.importorskip("pydantic", reason="comes with the official SDK: the interop extra")
    theirs: Any = pytest.importorskip("anthropic.lib._parse._transform", reason="the official SDK: the interop extra")
    size = (int, pydantic.Field(gt=0, description="in cm"))
    leaf: Any = pydantic.create_model("Leaf", size=size, kind=(str, "oak"))
    leaves = (list.__class_getitem__(leaf), pydantic.Field(min_length=1))
    tree = pydantic.create_model("Tree", leaves=leaves, name=(str | None, None), marks=(dict[str, int], {}))
    schema = tree.model_json_schema()
    assert json.dumps(strict_schema(schema)) == json.dumps(theirs.transform_schema(schema))


@pytest.mark.parametrize("name", [name for name in FIXTURES if message(name)])
def test_a_message_is_dumped_as_the_sdk_dumps_it(name: str) -> None:
    types: Any = pytest.importorskip("anthropic.types", reason="the official SDK: the interop extra")
    theirs, ours = types.Message.model_validate(message(name)), Message(message(name))
    assert ours.to_dict() == theirs.to_dict() == json.loads(ours.to_json())
    dump = json.loads(theirs.model_dump_json())
    assert ours.model_dump() == json.loads(ours.model_dump_json()) == dump


def test_a_name_of_ours_for_annotations_is_one_of_the_sdk() -> None:
    theirs: Any = pytest.importorskip("anthropic.types", reason="the official SDK: the interop extra")
    beta: Any = pytest.importorskip("anthropic.types.beta", reason="the official SDK: the interop extra")
    assert [name for name in rawsse.types.__all__ if not hasattr(theirs, name)] == []
    stub = Path(rawsse.types.__file__).with_name("beta.pyi").read_text(encoding="utf-8")
    assert [name for name in re.findall(r"^(Beta\w+) = ", stub, re.M) if not hasattr(beta, name)] == []


def test_an_unfinished_answer_reads_as_the_sdk_reads_it_after_every_character() -> None:
    jiter = pytest.importorskip("jiter", reason="comes with the official SDK: the interop extra")
    text = json.dumps({"name": 'Green "Tea" é\n', "price": 5.5e3, "count": -2, "all": [1, True, None, {"a": ""}]})
    for length in range(1, len(text) + 1):
        theirs = jiter.from_json(text[:length].encode(), partial_mode="trailing-strings")
        assert read_partial(text[:length], keep_strings=True) == theirs
