"""Environment variables out of a file: the lines, what goes before what, and what nobody's `.env` may do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rawsse.cli import main
from rawsse.cli.options import load_env_file, read_env_file
from rawsse.errors import ConfigurationError

NAMES = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "RAWSSE_TOKEN", "COLOUR")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that it is put back to what it was, whatever the test does
        monkeypatch.delenv(name)
    return tmp_path


# --- Lines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("  A = b  ", "b"),
        ("export A=b", "b"),
        ("export\tA=b", "b"),
        ('A="b c"', "b c"),
        ("A='b c'  # why", "b c"),
        ('A="b # c"', "b # c"),
        ("A=b#c", "b#c"),
        ("A=b # c", "b"),
        ("A= # c", ""),
        ("A=", ""),
        ("A=b=c", "b=c"),
        ("A=it's", "it's"),
        ("A='tis", "'tis"),
    ],
)
def test_a_line_gives_the_value_that_a_shell_user_expects(line: str, value: str) -> None:
    assert read_env_file(line) == {"A": value}


def test_comments_and_empty_lines_are_passed_over() -> None:
    assert read_env_file("# a\n\n  \nA=1\n  # b\nB=2") == {"A": "1", "B": "2"}


def test_lines_may_end_as_on_windows() -> None:
    assert read_env_file("A=1\r\nB=2\r\n") == {"A": "1", "B": "2"}


def test_the_last_line_of_a_name_counts() -> None:
    assert read_env_file("A=1\nA=2") == {"A": "2"}


@pytest.mark.parametrize(
    "line", ["sk-ant-secret", "secret", "=sk-ant-secret", "1A=sk-ant-secret", "A B=sk-ant-secret", "A=\0"]
)
def test_a_line_that_is_none_is_named_and_never_quoted(line: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_env_file(f"A=1\n{line}", "my.env")
    assert str(caught.value) == "my.env, line 2: not NAME=value"


# --- Files -----------------------------------------------------------------------------------------------------------


def test_a_dot_env_in_this_folder_is_read() -> None:
    Path(".env").write_bytes(b"ANTHROPIC_API_KEY=of-the-file\n")
    load_env_file(None)
    assert os.environ["ANTHROPIC_API_KEY"] == "of-the-file"


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    Path(".env").write_bytes(b"\xef\xbb\xbfANTHROPIC_API_KEY=of-the-file\r\n")
    load_env_file(None)
    assert os.environ["ANTHROPIC_API_KEY"] == "of-the-file"


def test_what_the_environment_has_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "of-the-environment")
    Path(".env").write_text("ANTHROPIC_API_KEY=of-the-file")
    load_env_file(None)
    assert os.environ["ANTHROPIC_API_KEY"] == "of-the-environment"


def test_no_dot_env_is_no_fault() -> None:
    load_env_file(None)
    assert "ANTHROPIC_API_KEY" not in os.environ


def test_a_folder_named_dot_env_is_no_fault() -> None:
    Path(".env").mkdir()  # some keep their virtual environment there
    load_env_file(None)


def test_a_named_file_must_be_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.env"):
        load_env_file(Path("gone.env"))
    assert main(["serve", "--env-file", "gone.env"]) == 1
    assert capsys.readouterr().err == "rawsse: gone.env: No such file or directory\n"


def test_a_file_in_another_encoding_is_refused_in_words() -> None:
    Path(".env").write_text("ANTHROPIC_API_KEY=x", encoding="utf-16")  # what PowerShell's `>` writes
    with pytest.raises(ConfigurationError, match=r"^cannot read \.env: it is not UTF-8 text$"):
        load_env_file(None)


# --- Trust -----------------------------------------------------------------------------------------------------------


def test_a_dot_env_that_nobody_named_gives_only_what_concerns_us() -> None:
    Path(".env").write_text("COLOUR=red\nRAWSSE_TOKEN=t")
    load_env_file(None)
    assert ("COLOUR" in os.environ, os.environ["RAWSSE_TOKEN"]) == (False, "t")


def test_a_named_file_gives_everything() -> None:
    Path("my.env").write_text("COLOUR=red")
    load_env_file(Path("my.env"))
    assert os.environ["COLOUR"] == "red"


@pytest.mark.parametrize("name", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"])
def test_a_dot_env_that_nobody_named_may_not_send_the_users_own_key_elsewhere(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "mine")
    Path(".env").write_text("ANTHROPIC_BASE_URL=https://example.org")
    with pytest.raises(ConfigurationError, match="would send it elsewhere"):
        load_env_file(None)
    assert "ANTHROPIC_BASE_URL" not in os.environ


def test_an_address_of_the_environment_stays_and_is_no_reason_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "mine")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "https://example.com")
    Path(".env").write_text("ANTHROPIC_BASE_URL=https://example.org")
    load_env_file(None)
    assert os.environ["ANTHROPIC_BASE_URL"] == "https://example.com"


def test_a_named_file_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "mine")
    Path(".env").write_text("ANTHROPIC_BASE_URL=https://example.org")
    load_env_file(Path(".env"))
    assert os.environ["ANTHROPIC_BASE_URL"] == "https://example.org"


def test_an_address_that_comes_with_its_own_key_is_taken() -> None:
    Path(".env").write_text("ANTHROPIC_API_KEY=theirs\nANTHROPIC_BASE_URL=https://example.org")
    load_env_file(None)
    assert os.environ["ANTHROPIC_BASE_URL"] == "https://example.org"
