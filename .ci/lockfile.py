"""Compares the lock files with pyproject.toml, without a network.

It shows that both say the same, not that the locked versions are the newest. Renew them with
    uv pip compile --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
        pyproject.toml -o requirements.lock
    (the same with --group dev -o requirements-dev.lock)
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
ENTRY = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+)(?P<rest>.*(?:\n[ \t].*)*)", re.M
)
DIRECT = "debugflow (pyproject.toml"


@dataclass(frozen=True)
class Locked:
    """One package in a lock file."""

    version: str
    hashed: bool
    direct: bool


def locked(text: str) -> dict[str, Locked]:
    """The packages that a lock file pins, by canonical name."""
    return {
        canonicalize_name(entry["name"]): Locked(
            entry["version"], "--hash=sha256:" in entry["rest"], DIRECT in entry["rest"]
        )
        for entry in ENTRY.finditer(text)
    }


def disagreements(name: str, text: str, declared: list[Requirement]) -> Iterator[str]:
    """What a lock file says other than pyproject.toml does."""
    packages = locked(text)
    wanted = {canonicalize_name(requirement.name): requirement for requirement in declared}
    for key, requirement in wanted.items():
        if key not in packages:
            yield f"{name}: {requirement} is declared and not locked"
        elif not requirement.specifier.contains(packages[key].version, prereleases=True):
            yield f"{name}: {key}=={packages[key].version} is locked, {requirement} is declared"
    for key, package in packages.items():
        if package.direct and key not in wanted:
            yield f"{name}: {key} is locked for pyproject.toml, which does not declare it"
        if not package.hashed:
            yield f"{name}: {key} has no hash"
    if "://" in re.sub(r"#.*", "", text) or "--index-url" in text:
        yield f"{name}: it names an index"


def between(runtime: str, dev: str) -> Iterator[str]:
    """Tests must run with the versions that production gets."""
    tested = locked(dev)
    for key, package in locked(runtime).items():
        if key not in tested or tested[key].version != package.version:
            yield f"{key}: production gets {package.version}, the tests another or none"


def main() -> int:
    """Print every disagreement; returns the exit code."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    runtime = [Requirement(text) for text in project["project"]["dependencies"]]
    dev = [Requirement(text) for text in project["dependency-groups"]["dev"]]
    texts = [
        (ROOT / name).read_text(encoding="utf-8")
        for name in ("requirements.lock", "requirements-dev.lock")
    ]
    found = [
        *disagreements("requirements.lock", texts[0], runtime),
        *disagreements("requirements-dev.lock", texts[1], runtime + dev),
        *between(*texts),
    ]
    sys.stderr.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
