"""Node as a function: a task goes in as JSON, its result comes out. For the tests of the page's pure JavaScript."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import rawsse

WEB = Path(rawsse.__file__).parent / "web"
NODE_MODULES = Path(os.environ.get("RAWSSE_NODE_MODULES", WEB.parents[1] / "tests/interop/node/node_modules"))
HARNESS = Path(__file__).with_name("harness.mjs")


class Node:
    """A running Node with the page's modules."""

    def __init__(self, executable: str) -> None:
        self._command = [executable, str(HARNESS), str(WEB)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=10)

    def __call__(self, task: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"task": task, **arguments}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline() or '"node has ended: see its words above"')

    def parse(self, *chunks: bytes, **options: Any) -> Any:
        return self("parse", chunks=[base64.b64encode(chunk).decode() for chunk in chunks], **options)
