"""rawsse/web as an npm package: what is in it, that it installs, and that its types are right."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support.command import ROOT

from .node_harness import NODE_MODULES, WEB

pytestmark = pytest.mark.real

TYPED = ("rawsse.js", "chat.js", "react.js", "ai.js")
TSC = ["--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom,dom.asynciterable"]


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packages() -> Path:
    missing = [
        name for name in ("esbuild", "react-dom", "typescript", "@types/react") if not (NODE_MODULES / name).is_dir()
    ]
    if missing or shutil.which("npm") is None:
        pytest.skip(f"no {missing or 'npm'} in {NODE_MODULES} (RAWSSE_NODE_MODULES names another folder)")
    return NODE_MODULES


def readme() -> str:
    return (WEB / "README.md").read_text(encoding="utf-8")


def pack() -> list[str]:
    """The arguments of the README's `npm`, which packs the folder from a checkout."""
    return readme().partition("\n    npm ")[2].partition(" && ")[0].split()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, packages: Path) -> Path:
    """A project of a web developer that has installed the packed folder."""
    folder = tmp_path_factory.mktemp("project")
    packed = json.loads(run("npm", *pack(), "--json", "--pack-destination", folder, cwd=ROOT))[0]
    assert sorted(file["path"] for file in packed["files"]) == [
        "README.md",
        "ai.d.ts",
        "ai.js",
        "chat.d.ts",
        "chat.js",
        "package.json",
        "rawsse.d.ts",
        "rawsse.js",
        "react.d.ts",
        "react.js",
        "tabs.d.ts",
        "tabs.js",
    ]
    (folder / "package.json").write_text('{"type": "module"}')
    run("npm", "install", "--offline", "--no-audit", "--no-fund", f"./{packed['filename']}", cwd=folder)
    for name in ("react", "react-dom", "scheduler", "@types", "csstype", "ai", "@ai-sdk"):
        (folder / "node_modules" / name).symlink_to(packages / name)
    return folder


def manifest() -> Any:
    return json.loads((WEB / "package.json").read_text())


def test_the_package_has_the_version_of_the_project() -> None:
    assert manifest()["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_package_needs_nothing_and_takes_react_as_a_peer() -> None:
    assert "dependencies" not in manifest()
    assert manifest()["peerDependencies"] == {"react": ">=18"}


def test_the_types_are_strict_and_the_declarations_are_made_of_them(packages: Path, tmp_path: Path) -> None:
    for file in (*TYPED, "package.json"):
        shutil.copy(WEB / file, tmp_path)
    (tmp_path / "node_modules").symlink_to(packages)
    emit = ["--checkJs", "--allowJs", "--declaration", "--emitDeclarationOnly", "--outDir", "made"]
    run(packages / ".bin/tsc", *emit, *TSC, *TYPED, cwd=tmp_path)
    for name in (file.replace(".js", ".d.ts") for file in TYPED):
        assert (WEB / name).read_text() == (tmp_path / "made" / name).read_text(), f"make {name} again: see above"


def test_it_imports_in_node(project: Path) -> None:
    script = 'import { streamChat } from "rawsse"; import { useStreamingChat } from "rawsse/react";'
    assert run(
        "node",
        "--input-type=module",
        "-e",
        f"{script} console.log(typeof streamChat, typeof useStreamingChat)",
        cwd=project,
    ) == ("function function\n")


def test_the_core_imports_where_there_is_no_react(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "node_modules/rawsse", tmp_path / "node_modules/rawsse")
    script = 'import { streamChat } from "rawsse"; import { Chat } from "rawsse/chat";'
    script += "console.log(typeof streamChat, typeof Chat)"
    assert run("node", "--input-type=module", "-e", script, cwd=tmp_path) == "function function\n"


PAGE = """
import { createElement as h } from "react";
import { renderToString } from "react-dom/server";
import { useStreamingChat } from "rawsse/react";
const Talk = () => {
  const { output, messages, isStreaming, error } = useStreamingChat({ messages: [{ role: "user", content: "Before" }] });
  return h("p", null, JSON.stringify({ output, messages, isStreaming, error }));
};
console.log(renderToString(h(Talk)).replaceAll("&quot;", '"'));
"""

SHOWN = '{"output":"","messages":[{"role":"user","content":"Before"}],"isStreaming":false,"error":null}'


def test_a_server_renders_the_hooks_first_state(project: Path) -> None:
    assert run("node", "--input-type=module", "-e", PAGE, cwd=project) == f"<p>{SHOWN}</p>\n"


def test_a_bundler_finds_it_and_its_bundle_runs(project: Path, packages: Path) -> None:
    (project / "page.js").write_text(PAGE)
    bundle: list[str | Path] = [
        "--bundle",
        "--platform=node",
        "--format=cjs",
        "--log-level=warning",
        "--outfile=bundle.cjs",
    ]
    assert run(packages / ".bin/esbuild", "page.js", *bundle, cwd=project) == ""
    assert SHOWN in run("node", "bundle.cjs", cwd=project)


def examples() -> list[str]:
    """The code of the package's README: a component, and one with `useChat`."""
    return re.findall("```jsx\n(.*?)```", readme(), re.DOTALL)


CONSUMER = """
import { ChatError, streamChat, textOf, type Options } from "rawsse";
import { useStreamingChat } from "rawsse/react";
import { sharedFetch } from "rawsse/tabs";
export const shared: Options = { fetch: sharedFetch };
export async function ask(options: Options): Promise<string> {
  const chat = streamChat("/api/chat/stream", { message: "Hello" }, { ...options, onText: (text) => text.trim() });
  for await (const event of streamChat("/api/chat", {})) textOf(event).trim();
  return chat.done.then(({ text }) => text, (error: unknown) => (error instanceof ChatError ? error.advice : ""));
}
export function useTalk(): [string, boolean] {
  const { output, isStreaming } = useStreamingChat("/x");
  return [output, isStreaming];
}
"""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("", ""),
        ('streamChat("/", {}, { onText: (n) => n.toFixed() });', "toFixed"),
        ('streamChat("/", {}, { waits: 3 });', "not assignable"),
        ('useStreamingChat({ storage: sessionStorage, key: "k" }).stopReason?.trim();', ""),
        ('useStreamingChat({ id: "one" });', "'id' does not exist"),
        ("useStreamingChat({ smooth: false });", "'smooth' does not exist"),
    ],
)
def test_a_typescript_project_gets_its_types(project: Path, packages: Path, code: str, said: str) -> None:
    (project / "consumer.ts").write_text(CONSUMER + code)
    command = [str(packages / ".bin/tsc"), "--noEmit", *TSC, "consumer.ts"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode == 0, said in done.stdout) == (said == "", True)


def plain() -> str:
    """The README's section about `streamChat`."""
    return readme().partition("## Without React\n")[2].partition("\n## ")[0]


def test_the_readme_s_program_without_react_has_the_types_of_the_package(project: Path, packages: Path) -> None:
    (code,) = re.findall(r"```js\n(.*?)```", plain(), re.DOTALL)
    elements = "declare const output: Element, note: Element, stop: HTMLElement;\n"
    (project / "plain.ts").write_text(elements + code)
    assert run(packages / ".bin/tsc", "--noEmit", *TSC, "plain.ts", cwd=project) == ""


def test_the_readme_names_all_options_of_stream_chat() -> None:
    options = fields("Callbacks", "rawsse.d.ts")
    assert {"onLost", "id"} <= options
    assert [name for name in options if not re.search(rf"\b{name}\b", plain())] == []
    assert "`rawsse.d.ts`" in plain()


def fields(name: str, file: str = "chat.d.ts") -> set[str]:
    """The names of a type in the declarations of rawsse/chat, or of another file."""
    body = (WEB / file).read_text(encoding="utf-8").partition(f"export type {name} = {{")[2].partition("\n};")[0]
    return set(re.findall(r"^    (\w+)\??:", body, re.MULTILINE))


def test_the_readme_names_all_fields_of_the_result(project: Path) -> None:
    table = (project / "node_modules/rawsse/README.md").read_text(encoding="utf-8").partition("| result |")[2]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)[`(]", row)}
    assert named == {*fields("ChatState"), "send", "retry", "stop", "clear", "resume"}


def test_the_components_of_the_readme_have_right_types(project: Path, packages: Path) -> None:
    for number, code in enumerate(examples()):
        (project / f"readme{number}.tsx").write_text(code)
    assert number == 1
    # The AI SDK's own declarations need the types of Node.
    options = ["--noEmit", *TSC, "--jsx", "react-jsx", "--skipLibCheck"]
    run(packages / ".bin/tsc", *options, "readme0.tsx", "readme1.tsx", cwd=project)
