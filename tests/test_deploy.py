"""rawsse/deploy: the unit of systemd, the Dockerfile and the configuration of nginx, as far as they can be read without these.

That a stream comes through this nginx is in `tests/interop/test_nginx.py`.
"""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from argparse import Namespace
from importlib.resources import files
from itertools import chain
from pathlib import Path

import pytest
from support.command import Command, environment

from rawsse.cli import _parser
from rawsse.http1 import MAX_BODY_BYTES

ROOT = Path(__file__).parents[1]
DEPLOY = files("rawsse") / "deploy"
UNIT, DOCKERFILE, NGINX = (
    (DEPLOY / name).read_text(encoding="utf-8") for name in ("rawsse@.service", "Dockerfile", "nginx.conf")
)


def serve_of(command: list[str]) -> Namespace:
    """The arguments of `rawsse serve`, as the parser reads them."""
    assert Path(command[0]).name == "rawsse"
    arguments = _parser().parse_args(command[1:])
    assert command[1] == "serve"
    return arguments


# --- systemd


@pytest.fixture(scope="module")
def service() -> configparser.SectionProxy:
    class Reader(configparser.RawConfigParser):
        def optionxform(self, optionstr: str) -> str:
            return optionstr

    unit = Reader(strict=False)
    unit.read_string(UNIT)
    return unit["Service"]


def test_the_unit_starts_a_command_that_exists_and_is_stopped_within_its_time(
    service: configparser.SectionProxy,
) -> None:
    *command, more, users = shlex.split(service["ExecStart"].replace("%i", "2"))
    arguments = serve_of(command)
    assert (more, users, arguments.port) == ("$RAWSSE_OPTIONS", "$USERS_OPTION", 8002)
    assert (arguments.host, arguments.proxy_headers, arguments.log_format) == ("127.0.0.1", "127.0.0.1", "json")
    assert arguments.drain > 0
    seconds = arguments.drain + arguments.grace
    assert (service["KillSignal"], int(service["TimeoutStopSec"]) > seconds) == ("SIGTERM", True)


def test_each_instance_of_the_unit_has_a_folder_with_its_ledger_and_all_may_have_one_store(
    service: configparser.SectionProxy,
) -> None:
    assert service["WorkingDirectory"] == f"%S/{service['StateDirectory']}"
    assert "%i" in service["StateDirectory"]
    assert serve_of(shlex.split(service["ExecStart"].replace("%i", "2"))[:-2]).ledger == Path("ledger.db")
    assert "RAWSSE_STORE=redis://" in UNIT
    assert "pip install 'rawsse[speed,redis]'" in UNIT


def test_the_unit_has_no_rights_no_key_and_enough_descriptors(service: configparser.SectionProxy) -> None:
    assert (service["DynamicUser"], service["ProtectSystem"], service["NoNewPrivileges"]) == ("yes", "strict", "yes")
    assert service["CapabilityBoundingSet"] == ""
    assert service["EnvironmentFile"] == "/etc/rawsse/environment"
    assert service["Environment"] == "USERS_OPTION="  # all users may read a unit
    assert int(service["LimitNOFILE"]) >= 2 * 10_000


DROP_IN = "".join(re.findall(r"^#     (\[Service\]\n|\w+=.+\n)", UNIT, flags=re.MULTILINE))


def test_the_unit_says_how_the_service_gets_its_users() -> None:
    first, credential, setting = DROP_IN.splitlines()
    # systemd.exec(5), LoadCredential: "ID:PATH"; systemd.unit(5): "%d" is "Credentials directory".
    assert (first, credential) == ("[Service]", "LoadCredential=users.toml:/etc/rawsse/users.toml")
    (assignment,) = shlex.split(setting.removeprefix("Environment="))
    name, _, option = assignment.partition("=")
    assert name == "USERS_OPTION"
    assert str(serve_of(["rawsse", "serve", *option.split()]).users) == "%d/users.toml"


def test_the_unit_names_every_secret_that_may_come_from_the_environment() -> None:
    assert re.findall(r"^#       (\w+)=…$", UNIT, flags=re.MULTILINE) == [
        "ANTHROPIC_API_KEY",
        "RAWSSE_TOKEN",
        "RAWSSE_METRICS_TOKEN",
    ]


@pytest.mark.real
@pytest.mark.parametrize("drop_in", ["", DROP_IN], ids=["as it is", "with users"])
@pytest.mark.parametrize("check", [["verify", "--man=no"], ["security", "--offline=true", "--threshold=20"]])
def test_systemd_itself_finds_no_fault_in_the_unit(check: list[str], drop_in: str, tmp_path: Path) -> None:
    if (tool := shutil.which("systemd-analyze")) is None:
        pytest.skip("no systemd-analyze on this machine")
    file = tmp_path / "rawsse@2.service"
    (tmp_path / "rawsse@2.service.d").mkdir()
    (tmp_path / "rawsse@2.service.d" / "override.conf").write_text(drop_in)
    file.write_text(UNIT.replace("/opt/rawsse/bin/rawsse", sys.executable))  # what is not there is a fault
    done = subprocess.run([tool, *check, file], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""


# --- Docker


def instructions() -> list[tuple[str, str]]:
    """(name, arguments) of each instruction."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())]


def test_the_dockerfile_has_instructions_that_exist_and_copies_files_that_exist() -> None:
    # https://docs.docker.com/reference/dockerfile/
    known = {
        "FROM",
        "COPY",
        "RUN",
        "USER",
        "WORKDIR",
        "VOLUME",
        "ENV",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
    }
    assert {name for name, _ in instructions()} <= known
    assert instructions()[0][0] == "FROM"
    for name, rest in instructions():
        for source in rest.split()[:-1] if name == "COPY" else ():
            assert (ROOT / source).exists(), source


def test_what_it_installs_from_is_copied_before() -> None:
    copied = {source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]}
    assert copied == {
        "pyproject.toml",
        "README.md",
        "fixtures",
        "rawsse",
    }  # what pyproject.toml names


def test_the_image_runs_as_a_user_with_a_number_and_starts_a_command_that_exists() -> None:
    found = dict(instructions())
    assert int(found["USER"]) > 0
    arguments = serve_of(json.loads(found["ENTRYPOINT"]))  # in JSON: a shell between would swallow SIGTERM
    (seconds,) = re.findall(r"--stop-timeout (\d+)", DOCKERFILE)
    assert arguments.drain > 0
    assert (found["STOPSIGNAL"], int(seconds) > arguments.drain + arguments.grace) == ("SIGTERM", True)
    assert "[speed,redis]" in found["RUN"]
    environment = dict(pair.split("=") for pair in found["ENV"].split())
    assert (environment["RAWSSE_HOST"], environment["PORT"]) == ("0.0.0.0", found["EXPOSE"])
    assert "ANTHROPIC_API_KEY" not in environment
    assert Path(environment["RAWSSE_LEDGER"]).parent == Path(found["VOLUME"])


def test_the_options_that_the_dockerfile_names_are_options() -> None:
    options = re.findall(r"^#   (--[a-z-]+) (\S+)  ", DOCKERFILE, flags=re.MULTILINE)
    assert [name for name, _ in options] == ["--proxy-headers", "--users", "--allow-host"]
    serve_of(["rawsse", "serve", *chain.from_iterable(options)])


def test_prometheus_is_told_of_the_instances_of_the_unit() -> None:
    (targets,) = re.findall(r"targets: (\[.*?\])", UNIT)
    assert json.loads(targets) == [f"127.0.0.1:800{number}" for number in range(3)]


def test_the_commands_of_the_image_are_commands() -> None:
    found = dict(instructions())
    subprocess.run(["sh", "-n", "-c", found["RUN"]], timeout=10, check=True)
    kind, _, check = found["HEALTHCHECK"].partition(" ")
    program, option, code = json.loads(check)
    assert (kind, program, option) == ("CMD", "python", "-c")
    with Command("demo", "--port", "0") as command:
        port = command.base_url.rpartition(":")[2]
        assert run_check(code, port) == 0
    assert run_check(code, port) == 1


def run_check(code: str, port: str) -> int:
    """The exit code of the image's check of a server's health."""
    program, variables = [sys.executable, "-c", code], environment({"PORT": port})
    return subprocess.run(program, env=variables, stderr=subprocess.DEVNULL, timeout=30, check=False).returncode


# --- nginx


def test_nginx_takes_the_largest_body_that_the_relay_takes() -> None:
    assert f"client_max_body_size {MAX_BODY_BYTES // 1024 // 1024}m;" in NGINX


def test_nginx_lets_no_client_say_who_it_is() -> None:
    assert "proxy_set_header X-Forwarded-For $remote_addr;" in NGINX
    assert 'proxy_set_header Forwarded "";' in NGINX
