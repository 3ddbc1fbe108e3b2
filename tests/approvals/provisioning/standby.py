"""A streaming replica of a target, made as a DBA would make it; not a test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from debugflow.embedded.postgres import EmbeddedPostgres, binaries
from debugflow.embedded.server import clean_environment
from debugflow.embedded.state import EmbeddedError, make_directory, run_as


class Standby(EmbeddedPostgres):
    """The embedded server over a base backup of `primary`, which it goes on following."""

    def __init__(
        self, directory: Path, primary: EmbeddedPostgres, *, settings: Mapping[str, str]
    ) -> None:
        super().__init__(directory, settings=settings)
        self._primary = primary

    def _create_cluster(self) -> None:
        make_directory(self.directory)
        # Its superuser is the primary's.
        shutil.copy(self._primary.directory / "superuser.password", self.directory)
        draft = Path(tempfile.mkdtemp(prefix="initdb-", dir=self.directory))
        if account := self._account:
            shutil.chown(draft, account.uid, account.gid)
        argv = [str(binaries() / "pg_basebackup"), f"--pgdata={draft / 'data'}"]
        argv += ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]
        argv += [f"--dbname={self._primary.url()}"]
        ended = run_as(self._account, argv, env=clean_environment())
        if ended.returncode != 0:
            raise EmbeddedError(f"pg_basebackup failed in {self.directory}:\n{ended.stdout}")
        (draft / "data").rename(self._home)
        shutil.rmtree(draft)
