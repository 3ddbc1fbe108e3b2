"""The control plane of one state directory: its PostgreSQL, its Valkey, its secrets.

The demo's target and the processes of the application live with the commands that start them.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from cryptography.fernet import Fernet

from debugflow.embedded.postgres import EmbeddedPostgres
from debugflow.embedded.roles import create_roles
from debugflow.embedded.state import (
    DirectoryLock,
    EmbeddedError,
    kept_secret,
    make_directory,
    state_dir,
)
from debugflow.embedded.valkey import EmbeddedValkey

__all__ = ["APP", "DATABASE", "MIGRATOR", "OWNER", "Runtime", "create_roles", "uses_real_servers"]

DATABASE = "debugflow"
OWNER = "debugflow_owner"
MIGRATOR = "debugflow_migrator"
APP = "debugflow_app"


def uses_real_servers(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment names real servers, so that none is embedded.

    Raises EmbeddedError when it names one of the two: half a choice is a mistake.
    """
    named = [name for name in ("DATABASE_URL", "REDIS_URL") if environ.get(name)]
    if len(named) == 1:
        raise EmbeddedError(f"Only {named[0]} is set. Set DATABASE_URL and REDIS_URL, or neither.")
    return bool(named)


class Runtime:
    """The embedded control plane; a second one over the same directory is refused."""

    def __init__(
        self, directory: Path | None = None, *, settings: Mapping[str, str] | None = None
    ) -> None:
        """`settings` are PostgreSQL's configuration parameters."""
        self.directory = make_directory((directory or state_dir()).absolute())
        self.postgres = EmbeddedPostgres(self.directory / "control", settings=settings or {})
        self.valkey = EmbeddedValkey(self.directory / "valkey")
        self._lock = DirectoryLock(self.directory)

    def start(self) -> None:
        """Start both servers and settle the database's roles.

        Raises EmbeddedError, naming directory and process, when another holds the directory.
        """
        self._lock.acquire()
        try:
            self.postgres.start()
            self.valkey.start()
            create_roles(
                self.postgres.url(),
                database=DATABASE,
                owner=OWNER,
                migrator=MIGRATOR,
                app=APP,
                passwords={login: self._secret(login) for login in (MIGRATOR, APP)},
            )
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop both servers; their data stays."""
        self.valkey.stop()
        self.postgres.stop()
        self._lock.release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def environment(self) -> dict[str, str]:
        """What the application's processes need, and no more: never the migrator's login."""
        return {
            "DATABASE_URL": self.postgres.url(DATABASE, APP, self._secret(APP)),
            "REDIS_URL": self.valkey.url,
            "SECRET_KEY": self._secret("secret_key"),
            "DEBUGFLOW_ENCRYPTION_KEYS": self._encryption_key(),
            "DEBUGFLOW_STATE_DIR": str(self.directory),
        }

    def migrations_environment(self) -> dict[str, str]:
        """The same for `migrate`, which acts as the owner so that the owner owns what it makes."""
        url = self.postgres.url(DATABASE, MIGRATOR, self._secret(MIGRATOR))
        return {
            **self.environment(),
            "MIGRATIONS_DATABASE_URL": f"{url}?options=-c%20role%3D{OWNER}",
        }

    def _secret(self, name: str) -> str:
        return kept_secret(self._secrets() / name)

    def _encryption_key(self) -> str:
        path = self._secrets() / "encryption_key"
        return kept_secret(path, make=lambda: Fernet.generate_key().decode("ascii"))

    def _secrets(self) -> Path:
        path = self.directory / "secrets"
        path.mkdir(mode=0o700, exist_ok=True)
        return path
