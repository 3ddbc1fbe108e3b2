"""The typed configuration of a PostgreSQL target and the typed rights of a level on it.

Values only; connecting is in `connect`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

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


Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]+$", max_length=253)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Replica(BaseModel):
    """Where a physical read replica of the server is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: Host
    port: Port = 5432

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class ServerConfig(BaseModel):
    """How debugflow reaches the server.

    `database` is what holders are told to connect to. `admin_database` is where debugflow itself
    signs in; keep them apart, so that holders cannot use up its connections. Everything but the
    place holds for the replicas too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: Host = Field(description="Name or address of the server, as its certificate has it.")
    port: Port = Field(default=5432, description="1 to 65535.")
    database: Name = Field(description="What holders are told to connect to.")
    user: Name = Field(description="The admin account that debugflow signs in with.")
    sslmode: Literal["verify-full", "verify-ca", "require", "disable"] = Field(
        default="verify-full",
        title="SSL mode",
        description="How the server's identity is checked. Production wants verify-full.",
    )
    admin_database: Name = Field(
        default="postgres",
        description="Where debugflow itself signs in; not where holders do, who could use up its"
        " connections.",
    )
    quarantine: Name = Field(
        default="dbgf_quarantine",
        description="The role, without a login, that takes over what holders leave behind.",
    )
    replicas: tuple[Replica, ...] = Field(
        default=(),
        max_length=16,
        description="Read replicas that holders can reach: sessions there are ended too.",
    )

    @model_validator(mode="after")
    def _each_place_once(self) -> Self:
        places = [(self.host, self.port), *((one.host, one.port) for one in self.replicas)]
        if len(set(places)) < len(places):
            raise ValueError("the server itself and each replica may be named once only")
        return self

    def at(self, replica: Replica) -> ServerConfig:
        """Return the same for one replica, as a server by itself."""
        return self.model_copy(update={"host": replica.host, "port": replica.port, "replicas": ()})


class LevelRights(BaseModel):
    """A role that the target's owner prepared. An empty `database` means the target's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: LevelName = Field(
        description="The role, without a login, whose rights a holder gets. It is checked on the"
        " target when the level is saved."
    )
    database: Name | Literal[""] = Field(
        default="", description="Where its holder is led to. Empty for the target's own."
    )
    connection_limit: int = Field(
        default=10, ge=1, le=100, description="How often a holder may connect at once: 1 to 100."
    )
