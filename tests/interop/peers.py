"""Peers in processes of their own: a server with TLS (uvicorn), proxies on the way to the Messages API, nginx before a relay.

with tls_server(folder, certificates) as port: ...          # https://localhost:port plays the recording `plain`
with tinyproxy(folder, user="Aladdin:open sesame") as url: ...
with nginx(folder, NGINX_SERVER.format(port=…, upstream=relay.base_url, settings="gzip on;"), listener): ...
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.background import PATIENCE
from support.command import environment

__all__ = ["NGINX_SERVER", "nginx", "proxy_py", "tinyproxy", "tls_server"]

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"

NGINX_CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {site}
}}
"""

NGINX_SERVER = "server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {upstream}; {settings} }} }}"
"""The site of a proxy with its default settings, and some others."""

PLAYER = """
from rawsse.replay import Player, shipped_fixtures
app = Player([shipped_fixtures()["plain"]], speed=0)
"""

TINYPROXY = """
Port {port}
Listen 127.0.0.1
Timeout 60
LogLevel Info
BasicAuth {user} {password}
"""

# It ends with its standard input: when the test has.
PROXY_PY = """
import sys, proxy
with proxy.Proxy(sys.argv[1:]) as running:
    print(running.flags.port, flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def tls_server(folder: Path, certificate: Path, host: str = "127.0.0.1") -> Iterator[int]:
    """uvicorn with this certificate and key, on a socket that is open already: its port."""
    pytest.importorskip("uvicorn", reason="a server with TLS: the extra `interop`")
    (folder / "hosted.py").write_text(PLAYER)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        command = ["uvicorn", "hosted:app", "--fd", str(listener.fileno()), "--log-level", "warning"]
        command += ["--ssl-certfile", str(certificate), "--ssl-keyfile", str(certificate)]
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env=environment({}),
            pass_fds=[listener.fileno()],
        )
        with _ending(process):
            yield listener.getsockname()[1]


@contextlib.contextmanager
def tinyproxy(folder: Path, *, user: str, password: str) -> Iterator[str]:
    """tinyproxy of Debian: where it is."""
    executable = shutil.which("tinyproxy")
    if executable is None:
        pytest.skip("no tinyproxy on this machine")
    with socket.create_server(("127.0.0.1", 0)) as sock:  # it can neither choose a port nor be given a socket
        port = sock.getsockname()[1]
    file = folder / "tinyproxy.conf"
    file.write_text(TINYPROXY.format(port=port, user=user, password=password))
    process = subprocess.Popen(
        [executable, "-d", "-c", file], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with _ending(process):
        assert process.stdout is not None
        log = ""
        while "Accepting connections" not in log:
            line = process.stdout.readline()
            assert line, f"tinyproxy has ended: {log}"
            log += line
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def proxy_py(folder: Path, *, user: str, password: str, certificate: Path | None = None) -> Iterator[str]:
    """proxy.py of PyPI: where it is. With a certificate it is an https proxy."""
    pytest.importorskip("proxy", reason="proxy.py: the extra `interop`")
    options = ["--port", "0", "--basic-auth", f"{user}:{password}", "--num-acceptors", "1", "--num-workers", "1"]
    options += ["--log-level", "CRITICAL", "--data-dir", str(folder / "proxy.py")]
    if certificate is not None:
        options += ["--cert-file", str(certificate), "--key-file", str(certificate)]
    process = subprocess.Popen(
        [sys.executable, "-c", PROXY_PY, *options],
        env=environment({"HOME": str(folder)}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with _ending(process):
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line, "proxy.py has ended"
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{line}"


@contextlib.contextmanager
def nginx(folder: Path, site: str, *listeners: socket.socket) -> Iterator[None]:
    """nginx with one site, or with several of them, each of which listens on one of these sockets."""
    if not Path(NGINX).exists():
        pytest.skip("no nginx on this machine")
    file = folder / "nginx.conf"
    file.write_text(NGINX_CONFIGURATION.format(folder=folder, site=site))
    # NGINX: the sockets that are open already. It takes them over, as it does from its predecessor at an upgrade.
    descriptors = [listener.fileno() for listener in listeners]
    env = {"NGINX": "".join(f"{descriptor};" for descriptor in descriptors)}
    process = subprocess.Popen([NGINX, "-p", folder, "-c", file, "-e", "stderr"], env=env, pass_fds=descriptors)
    with _ending(process):
        yield


@contextlib.contextmanager
def _ending(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)
