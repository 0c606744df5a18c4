"""nginx as a baseline: a proxy in C that copies bytes, with buffering off and one worker."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from loadtest.serving import Server, stopping

__all__ = ["find_nginx", "nginx_version", "started_nginx"]

_START_SECONDS = 10.0
_CONFIGURATION = """\
daemon off;
worker_processes 1;
{user}
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 20000; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    upstream model {{ server {upstream}; keepalive 2048; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""


def find_nginx() -> str | None:
    """The program, if it is installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def nginx_version(program: str) -> str:
    """Its version, as a number."""
    said = subprocess.run([program, "-v"], check=True, capture_output=True, text=True)  # noqa: S603  # found in the path
    return said.stderr.strip().rpartition("/")[2]


@contextmanager
def started_nginx(program: str, upstream: str) -> Iterator[Server]:
    """``program`` before ``upstream``. Raises ``RuntimeError`` when it does not get ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder) / "nginx.conf"
        user = "user root;" if os.getuid() == 0 else ""  # its worker would else be somebody who may not read the folder
        text = _CONFIGURATION.format(folder=folder, upstream=urlsplit(upstream).netloc, port=port, user=user)
        configuration.write_text(text, encoding="utf-8")
        command = [program, "-p", folder, "-c", str(configuration)]
        with subprocess.Popen(command, text=True) as process, stopping(process):  # noqa: S603  # found in the path
            _wait_for(port, process)
            yield Server([f"http://127.0.0.1:{port}"], psutil.Process(process.pid))


def _wait_for(port: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError("nginx did not start")
