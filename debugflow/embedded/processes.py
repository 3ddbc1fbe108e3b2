"""The application's own processes on one machine: the web server and two workers.

Each worker has a sweeper inside, and each listens to queues of its own, so that work that waits on
targets never holds up a revoke. The servers they need are `runtime`'s.
"""

import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, TextIO

import httpx
from celery import Celery
from kombu import pools
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from debugflow.embedded.server import HOST, free_port
from debugflow.embedded.state import CHECKOUT, EmbeddedError
from debugflow.embedded.supervisor import Supervisor

WORKERS: Final = {"worker-a": "provision,notify,default", "worker-b": "revoke"}
READY_WITHIN = 60.0  # seconds; a machine that runs a test suite beside us is slow
POLL = 0.05  # seconds between two looks
LOG_TAIL = 25  # lines of a log that an error message shows
KEY_PREFIX = "debugflow:"  # of the broker's keys, as in the settings of the application


class Processes:
    """web, worker-a and worker-b; their lines go to `log_dir`/NAME.log."""

    def __init__(self, log_dir: Path, *, out: TextIO, port: int) -> None:
        """`port` is the web server's, or another if that is taken; 0 is any free one."""
        self.supervisor = Supervisor(out, log_dir=log_dir)
        self.port = port if _is_free(port) else free_port()
        self._log_dir = log_dir
        self._environment: Mapping[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def log(self, name: str) -> Path:
        return self._log_dir / f"{name}.log"

    def start(self, environment: Mapping[str, str]) -> None:
        """Start all three; `wait_until_ready` waits for them."""
        self._environment = environment
        options = ["--workers", "2", "--host", HOST, "--port", str(self.port)]
        self._python(
            "web", "-m", "uvicorn", "debugflow.asgi:application", *options, "--no-proxy-headers"
        )
        for name in WORKERS:
            self.start_worker(name)

    def start_worker(self, name: str) -> None:
        """Start a worker, or start it again after its end."""
        options = ["--pool", "threads", "--concurrency", "4", "--hostname", _hostname(name)]
        options += ["--queues", WORKERS[name], "--loglevel", "INFO"]
        self._python(name, "-m", "celery", "-A", "debugflow", "worker", *options)

    def stop(self) -> None:
        self.supervisor.stop()

    def wait_until_ready(self) -> None:
        """Wait until the web server and both workers answer; EmbeddedError when one does not."""
        self._wait_for("web", self._web_answers)
        self.wait_for_workers()

    def wait_for_workers(self) -> None:
        """Wait until both workers answer through the broker."""
        for name in WORKERS:
            self._wait_for(name, partial(self._worker_answers, name))

    def tail(self, names: Iterable[str] = ("web", *WORKERS)) -> str:
        """The logs' paths and last lines, for a message about what went wrong."""
        return "\n".join(f"── {self.log(name)}\n{_last_lines(self.log(name))}" for name in names)

    def _python(self, name: str, *arguments: str) -> None:
        argv = [sys.executable, *arguments]
        self.supervisor.start(name, argv, env=self._environment, cwd=CHECKOUT)

    def _wait_for(self, name: str, answers: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while not answers():
            if not self.supervisor.alive(name) or time.monotonic() > deadline:
                raise EmbeddedError(f"{name} does not answer.\n{self.tail([name])}")
            time.sleep(POLL)

    def _web_answers(self) -> bool:
        try:
            response = httpx.get(f"{self.url}/api/v1/session/", timeout=5, trust_env=False)
        except httpx.TransportError:
            return False
        return response.status_code == httpx.codes.FORBIDDEN

    def _worker_answers(self, name: str) -> bool:
        """Whether it answers a ping through the broker."""
        broker = Celery(broker=self._environment["REDIS_URL"], fixups=[], set_as_current=False)
        broker.conf.broker_transport_options = {
            "global_keyprefix": KEY_PREFIX,
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
        }
        try:
            return bool(broker.control.ping([_hostname(name)], timeout=1, limit=1))
        except (KombuError, RedisError, OSError):
            return False
        finally:
            broker.close()
            pools.reset()  # one for the whole process; its connections do not outlive a broker


def _hostname(name: str) -> str:
    """Of a worker, as Celery wants it: unique among those that share a broker."""
    return f"{name}@localhost"


def _is_free(port: int) -> bool:
    if port == 0:
        return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the web server does
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _last_lines(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "(never written)"
    return "\n".join(lines[-LOG_TAIL:])
