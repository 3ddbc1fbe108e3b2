"""What an installation may leave when it has ended: files, and no program; not a test."""

import os
from collections.abc import Iterator
from pathlib import Path


def still_running(place: Path) -> list[str]:
    """The programs that were told of, or work in, this state directory."""
    return [command for pid, command in programs() if is_of(pid, place)]


def programs() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if command:
            yield int(entry.name), command


def is_of(pid: int, place: Path) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        return os.fsencode(place) in environment or str(place) in os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return False


def secrets_below(place: Path) -> list[str]:
    files = [
        *place.rglob("*.password"),
        *place.glob("*/valkey/password"),
        *place.glob("*/secrets/*"),
    ]
    return [file.read_text() for file in files]
