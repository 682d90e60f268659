"""What it costs to import rawsse, and to get from the start of a process to the first text, beside the official SDK.

    python -m tests.benchmarks.start [--rounds 10] [--against OTHER_CHECKOUT]

Each run is a fresh process. `rawsse` loads its names when they are first used, so its client is imported, too. An import's
time is that of the statement alone; the first text's includes the interpreter's start. CPU time is the one to compare, since
other processes of the machine do not count.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from . import measure
from .measure import Kinds, Sample
from .upstream import ask

CHILD_SECONDS = 60
LEAST = "asyncio, ssl"

IMPORT = """
import time
started = time.process_time()
{statement}
print('{{"CPU ms": %f}}' % ((time.process_time() - started) * 1000))
"""
BLOCKING_TEXT = """
from {module} import Anthropic
client = Anthropic(base_url="{url}", api_key="any", max_retries=0)
with client.messages.stream(**{ask}) as stream:
    next(iter(stream.text_stream))
    {report}
"""
ASYNC_TEXT = """
import asyncio
from {module} import AsyncAnthropic
async def main():
    client = AsyncAnthropic(base_url="{url}", api_key="any", max_retries=0)
    async with client.messages.stream(**{ask}) as stream:
        await anext(aiter(stream.text_stream))
        {report}
asyncio.run(main())
"""
# VmHWM, not `ru_maxrss`: that one counts the parent's memory from before `exec`.
REPORT = """
import time; wall, cpu = time.monotonic(), time.process_time()
peak = int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) / 1024
print('{"CPU ms": %f, "at": %f, "peak MiB": %f}' % (cpu * 1000, wall, peak), flush=True)
"""


def import_time(statement: str, checkout: Path) -> Sample:
    sample: Sample = measure.result_of(
        "-c", IMPORT.format(statement=statement), seconds=CHILD_SECONDS, checkout=checkout
    )
    return sample


def first_text(script: str, module: str, port: int, checkout: Path) -> Sample:
    report = f"exec({REPORT!r})"
    code = script.format(module=module, url=f"http://127.0.0.1:{port}", ask=ask(10, 0), report=report)
    started = time.monotonic()
    sample = measure.result_of("-c", code, seconds=CHILD_SECONDS, checkout=checkout)
    return {"CPU ms": sample["CPU ms"], "wall ms": (sample["at"] - started) * 1000, "peak MiB": sample["peak MiB"]}


def main() -> None:
    arguments = measure.parser_of(__doc__, rounds=10).parse_args()
    measure.print_machine()
    found = measure.checkouts(arguments.against)
    modules = {label: ("rawsse", checkout) for label, checkout in found.items()}
    if measure.is_installed("anthropic"):
        modules["sdk"] = ("anthropic", found["rawsse"])
    with measure.running_upstream() as port:
        for name, form in (("import", "import {}"), ("import of the client", "from {} import AsyncAnthropic")):
            kinds = {label: (form.format(module), checkout) for label, (module, checkout) in modules.items()}
            kinds[LEAST] = f"import {LEAST}", found["rawsse"]
            measure.compare(name, imports(kinds), arguments.rounds, (LEAST, "sdk"))
        for name, script in (("async", ASYNC_TEXT), ("blocking", BLOCKING_TEXT)):
            runs = {label: partial(first_text, script, module, port, at) for label, (module, at) in modules.items()}
            measure.compare(f"process start to first text, {name}", runs, arguments.rounds, ("sdk",))


def imports(statements: Mapping[str, tuple[str, Path]]) -> Kinds:
    kinds = {label: partial(import_time, statement, checkout) for label, (statement, checkout) in statements.items()}
    for run in kinds.values():
        run()  # bytecode is written, files are in the page cache
    return kinds


if __name__ == "__main__":
    main()
