"""The typed configuration of a PostgreSQL target and the typed rights of a level on it.

Values only; connecting is in `connect`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

ACCOUNT = re.compile(r"dbgf_[0-9]+")
NAME_BYTES = 63
"""NAMEDATALEN - 1: the server cuts longer names off, so that two could become one."""


def _name(value: str) -> str:
    if not value or len(value.encode()) > NAME_BYTES or not value.isprintable():
        raise ValueError(f"must be 1 to {NAME_BYTES} bytes of printable characters")
    return value


def _level_name(value: str) -> str:
    if ACCOUNT.fullmatch(value):
        raise ValueError("looks like a temporary account; choose a role of your own")
    return _name(value)


Name = Annotated[str, AfterValidator(_name)]
LevelName = Annotated[str, AfterValidator(_level_name)]


class ServerConfig(BaseModel):
    """How debugflow reaches the server.

    `database` is what holders are told to connect to. `admin_database` is where debugflow itself
    signs in; keep them apart, so that holders cannot use up its connections.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(pattern=r"^[A-Za-z0-9._:-]+$", max_length=253)
    port: int = Field(default=5432, ge=1, le=65535)
    database: Name
    user: Name
    sslmode: Literal["verify-full", "verify-ca", "require", "disable"] = "verify-full"
    admin_database: Name = "postgres"
    quarantine: Name = "dbgf_quarantine"


class LevelRights(BaseModel):
    """A role that the target's owner prepared. An empty `database` means the target's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: LevelName
    database: Name | Literal[""] = ""
    connection_limit: int = Field(default=10, ge=1, le=100)
