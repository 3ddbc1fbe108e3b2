"""Runs Django's own checks as production would: real roles, fresh keys, TLS on, no demo.

The migrations are applied first, by the migrator's login, so that the checks of who owns what
have something to look at.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from debugflow.embedded.runtime import Runtime  # noqa: E402 - the path comes first
from debugflow.embedded.state import scratch  # noqa: E402

KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")  # the caller's settings must not leak in
PRODUCTION = {
    "ALLOWED_HOSTS": "debugflow.example.com",
    "CSRF_TRUSTED_ORIGINS": "https://debugflow.example.com",
    "DEBUGFLOW_SITE_URL": "https://debugflow.example.com",
    "EMAIL_HOST": "mail.example.com",
    "PYTHONWARNINGS": "error::RuntimeWarning",  # makemigrations only warns without a database
}


def manage(env: dict[str, str], *arguments: str) -> int:
    """Run manage.py with nothing but `env`; returns the exit code."""
    sys.stdout.write(f"manage.py {' '.join(arguments)}\n")
    sys.stdout.flush()
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    argv = [sys.executable, str(ROOT / "manage.py"), *arguments]
    return subprocess.run(argv, check=False, env=kept | PRODUCTION | env).returncode  # noqa: S603


def main() -> int:
    """Returns how many of the checks failed."""
    with scratch() as directory, Runtime(directory, settings={"fsync": "off"}) as runtime:
        app, migrator = runtime.environment(), runtime.migrations_environment()
        codes = [
            manage(migrator, "migrate", "--verbosity=0"),
            manage(app, "makemigrations", "--check", "--dry-run"),
            manage(app, "check", "--deploy", "--fail-level=WARNING", "--database=default"),
        ]
    return sum(code != 0 for code in codes)


if __name__ == "__main__":
    sys.exit(main())
