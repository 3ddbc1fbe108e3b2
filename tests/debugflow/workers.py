"""A real Celery worker of ours, whose canary sings often, so that tests need not wait for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from debugflow.embedded.state import CHECKOUT
from debugflow.embedded.valkey import EmbeddedValkey
from tests.conftest import Control

WORKER = """
import sys, django
django.setup()
from approvals import heartbeats
heartbeats.CANARY_EVERY, heartbeats.BEAT_EVERY = 0.2, 0.2
from celery.bin.celery import main
sys.argv = ["celery", "-A", "debugflow", "worker", *sys.argv[1:]]
main()
"""


@contextmanager
def worker(
    control: Control, valkey: EmbeddedValkey, *, queues: str = "default"
) -> Iterator[subprocess.Popen[bytes]]:
    told = {
        "DATABASE_URL": control.url(),
        "REDIS_URL": valkey.url,
        "DEBUGFLOW_DEMO": "True",
        "DJANGO_SETTINGS_MODULE": "debugflow.settings",
        "LOG_LEVEL": "ERROR",
    }
    arguments = ["--pool=threads", "--concurrency=2", f"--queues={queues}"]
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, *arguments], cwd=CHECKOUT, env=os.environ | told
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)
