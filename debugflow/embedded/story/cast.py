"""Who plays in the demonstration, and what everything in it is called. No Django in here."""

from typing import Final

PASSWORD: Final = "debugflow-demo"  # noqa: S105  (printed on purpose; the demo stays on localhost)
MEMBERS: Final = {
    "developers": ("alice", "amir", "erik"),
    "dba": ("bob", "dan", "dora"),
    "security": ("carol", "dora"),
    "owners": ("olga",),
    "oncall": ("amir",),
}
ADMIN: Final = "ada"
PEOPLE: Final = {
    "alice": "developer; may ask",
    "amir": "developer, on call; may ask, and open in an emergency",
    "erik": "developer; may ask",
    "bob": "dba; decides first",
    "dan": "dba; decides first",
    "carol": "security; decides second",
    "dora": "dba and security; counts once",
    "olga": "owns the target; may take any access away",
    "mallory": "has an account and nothing else",
    ADMIN: "administers; approves nothing",
}
TARGET: Final = "orders-production"
READ_ONLY, READ_WRITE = "read-only", "read-write"
POLICY: Final = "Production access"
REMIND_AFTER, ESCALATE_AFTER = 60, 65
"""Seconds that a request waits before whoever is asked is reminded, and before others are asked."""
