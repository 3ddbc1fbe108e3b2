"""Where the embedded servers keep their files, who may use them, and as which system user.

What runs there lives in `postgres`, `valkey` and `runtime`.
"""

import fcntl
import hashlib
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
SYSTEM_USER = "debugflow_pg"  # PostgreSQL refuses to run as root
SYSTEM_STATE = Path("/var/lib/debugflow")
SCRATCH_LOCK = "scratch.lock"  # not "lock": a server in there has one of its own
USER_ADDED_WITHIN = 10.0  # seconds; another start may hold the lock of /etc/passwd


class EmbeddedError(RuntimeError):
    """An embedded server cannot run; the message says why and what to do."""


@dataclass(frozen=True)
class Account:
    """A system user that a server runs as."""

    name: str
    uid: int
    gid: int


def server_account() -> Account | None:
    """The system user for PostgreSQL, made if need be; None when we are not root.

    Raises EmbeddedError when the system lets us make none.
    """
    if os.geteuid() != 0:
        return None
    deadline = time.monotonic() + USER_ADDED_WITHIN
    while (account := _find_account()) is None:
        failure = _add_account()
        if failure and time.monotonic() > deadline:
            raise EmbeddedError(
                f"PostgreSQL refuses to run as root, and the system user {SYSTEM_USER} could not "
                f"be added: {failure}. Run as an ordinary user, or set DATABASE_URL and REDIS_URL."
            )
    return account


def _find_account() -> Account | None:
    try:
        entry = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _add_account() -> str:
    """Add the system user; returns what went wrong, if anything."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    program = shutil.which("useradd", path=path)
    if program is None:
        return "there is no useradd"
    argv = [program, "--system", "--no-create-home", "--home-dir", "/nonexistent"]
    argv += ["--shell", "/usr/sbin/nologin", "--user-group", SYSTEM_USER]
    ended = run_as(None, argv)
    if ended.returncode == 0:
        return ""
    time.sleep(0.1)  # useradd does not wait for the lock of /etc/passwd; the caller asks again
    return ended.stdout.strip()


def run_as(
    account: Account | None,
    argv: list[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end as `account`; what it said on either channel is in `stdout`."""
    return subprocess.run(  # noqa: S603 - every argv is one of ours, and no shell reads it
        argv,
        check=False,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


def succeeds_as(account: Account | None, argv: list[str]) -> bool:
    """Whether the account can run `argv` to a good end: the one honest test of permissions."""
    try:
        return run_as(account, argv).returncode == 0
    except OSError:
        return False


def reachable(path: Path, *, by: Account | None) -> bool:
    """Whether the account can go into the directory `path`."""
    if by is None:
        return os.access(path, os.X_OK)
    return succeeds_as(by, ["/bin/sh", "-c", 'cd -- "$0"', str(path)])


def make_directory(path: Path) -> Path:
    """Make `path`, private but (as root) passable for the server's system user.

    A directory that exists keeps its permissions: it may be shared with others.
    """
    if path.is_dir():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(exist_ok=True)
    path.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return path


def state_dir() -> Path:
    """The directory for everything that the embedded servers of this checkout keep.

    DEBUGFLOW_STATE_DIR if it is set; else inside the checkout; else, where the server's system
    user cannot go there or we cannot write, one named after the checkout's path elsewhere.
    """
    chosen = os.environ.get("DEBUGFLOW_STATE_DIR")
    return make_directory(Path(chosen).absolute()) if chosen else _own_state_dir()


def remove_state() -> None:
    """Remove what this checkout's servers kept; raises EmbeddedError while they run.

    Not a directory that DEBUGFLOW_STATE_DIR names: whatever else lies there is not ours.
    """
    directory = _own_state_dir()
    lock = DirectoryLock(directory)
    lock.acquire()
    shutil.rmtree(directory)
    lock.release()


def _own_state_dir() -> Path:
    account = server_account()
    if os.access(CHECKOUT, os.W_OK) and reachable(CHECKOUT, by=account):
        inside = make_directory(CHECKOUT / ".debugflow")
        if os.access(inside, os.W_OK) and reachable(inside, by=account):
            return inside
    digest = hashlib.sha256(os.fsencode(CHECKOUT)).hexdigest()[:16]
    return make_directory(make_directory(_elsewhere()) / digest)


def _elsewhere() -> Path:
    if os.geteuid() == 0:
        return SYSTEM_STATE
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "debugflow"


class DirectoryLock:
    """Says that one process uses a directory; dies with that process."""

    def __init__(self, directory: Path, *, name: str = "lock") -> None:
        self.directory = directory
        self._name = name
        self._file: int | None = None

    def acquire(self) -> None:
        """Raises EmbeddedError, naming the directory and the process, when another holds it."""
        file = os.open(self.directory / self._name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 20, 0).decode().strip() or "unknown"
            os.close(file)
            raise EmbeddedError(
                f"{self.directory} is in use by process {holder}. Stop that process, or set "
                "DEBUGFLOW_STATE_DIR to another directory."
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file

    def release(self) -> None:
        """Unlock; by name, since closing alone leaves the lock to a forked child."""
        if self._file is None:
            return
        fcntl.flock(self._file, fcntl.LOCK_UN)
        os.close(self._file)
        self._file = None


def new_secret() -> str:
    """64 URL-safe characters: 384 bits, and safe unquoted in URLs and configuration files."""
    return secrets.token_urlsafe(48)


def kept_secret(path: Path, *, make: Callable[[], str] = new_secret) -> str:
    """The secret kept at `path`, made on first use."""
    if not path.exists():
        write_private(path, make())
    return path.read_text(encoding="ascii")


def write_private(path: Path, text: str) -> None:
    """Write a file that only we may read, whole or not at all."""
    file, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # made 0600
    with os.fdopen(file, "w", encoding="utf-8") as draft:
        draft.write(text)
        draft.flush()
        os.fsync(draft.fileno())
    Path(name).replace(path)


@contextmanager
def scratch(within: Path | None = None) -> Iterator[Path]:
    """A directory for servers that are thrown away, below `within` or the state directory.

    Not one of pytest's or of tempfile's: as root those shut out the server's system user.
    What a killed process left is removed by the next one.
    """
    parent = make_directory((within or state_dir()) / "scratch")
    with (parent / "lock").open("a") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)  # between mkdtemp and its lock nobody may sweep
        _sweep(parent)
        path = Path(tempfile.mkdtemp(dir=parent))
        path.chmod(parent.stat().st_mode)
        lock = DirectoryLock(path, name=SCRATCH_LOCK)
        lock.acquire()
    try:
        yield path
    finally:
        lock.release()
        shutil.rmtree(path, ignore_errors=True)


def _sweep(parent: Path) -> None:
    for path in parent.iterdir():
        if path.is_dir() and _unused(path):
            shutil.rmtree(path, ignore_errors=True)


def _unused(path: Path) -> bool:
    lock = DirectoryLock(path, name=SCRATCH_LOCK)
    try:
        lock.acquire()
    except EmbeddedError:
        return False
    lock.release()
    return True
