"""Which actions an Event may name. The apps that act declare theirs; none are declared here."""

import re

_FORM = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_declared: set[str] = set()


class UnknownAction(LookupError):
    """An Event names an action that no app has declared."""


def declare(*names: str) -> None:
    """Make `names` known, all of them or none.

    Raises ValueError for a name that is not of the form `noun.verb`, or that is taken: two apps
    that mean different things by one name would make the log unreadable.
    """
    for name in names:
        if not _FORM.fullmatch(name):
            raise ValueError(f"an action is named like 'request.submitted', not {name!r}")
        if name in _declared or names.count(name) > 1:
            raise ValueError(f"the action {name!r} is declared twice")
    _declared.update(names)


def require(name: str) -> str:
    """Return `name` if it is declared. Raises UnknownAction."""
    if name not in _declared:
        raise UnknownAction(f"no app has declared the action {name!r}")
    return name


def declared() -> frozenset[str]:
    """Every action that an Event may name."""
    return frozenset(_declared)
