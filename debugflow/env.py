"""Settings from the environment, loud when wrong. Knows nothing of which settings there are."""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

MISSING = object()


def text(name: str, default: object = MISSING) -> str:
    """The value of NAME, or the contents of the file that NAME_FILE names.

    Raises ImproperlyConfigured if neither is set and there is no default, or if the file cannot
    be read: a secret that silently becomes the default is worse than a refused start.
    """
    path = os.environ.get(f"{name}_FILE")
    if path:
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ImproperlyConfigured(f"{name}_FILE={path} cannot be read: {error}") from error
        except UnicodeDecodeError:
            # Without its cause, which holds the file's bytes.
            raise ImproperlyConfigured(f"{name}_FILE={path} cannot be read: no UTF-8.") from None
    value = os.environ.get(name)
    if value is not None:
        return value
    if default is MISSING:
        raise ImproperlyConfigured(f"Set {name} (or {name}_FILE) in the environment.")
    return str(default)


def boolean(name: str, default: bool) -> bool:
    """True or False, spelled exactly so; anything else is refused."""
    value = text(name, str(default))
    if value not in {"True", "False"}:
        raise ImproperlyConfigured(f"{name} must be True or False, not {value!r}.")
    return value == "True"


def number(name: str, default: int, *, at_least: int = 0) -> int:
    """A whole number of at least `at_least`."""
    value = text(name, str(default))
    if not value.isdecimal() or int(value) < at_least:
        raise ImproperlyConfigured(f"{name} must be a whole number from {at_least}, not {value!r}.")
    return int(value)


def words(name: str, default: str = "") -> list[str]:
    """A comma-separated list; empty items are dropped."""
    return [word.strip() for word in text(name, default).split(",") if word.strip()]


def with_password(url: str, password: str) -> str:
    """The URL with the password, which is kept apart from it where secrets are files of their own.

    An empty password changes nothing. Raises ImproperlyConfigured, repeating neither, for a URL
    that has another password already, and for what is no URL.
    """
    if not password:
        return url
    scheme, separator, rest = url.partition("://")
    login, _, place = rest.rpartition("@")
    name, _, given = login.partition(":")
    if not separator or (given and unquote(given) != password):
        raise ImproperlyConfigured("A URL has another password than the one given apart from it.")
    return f"{scheme}://{name}:{quote(password, safe='')}@{place}"


def networks(name: str, default: str = "") -> list[str]:
    """A comma-separated list of networks in CIDR notation, in their canonical form."""
    try:
        return [str(ip_network(word)) for word in words(name, default)]
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} must list networks like 10.1.2.0/24: {error}") from None


def database(name: str, default: object = MISSING, *, password: str = "") -> dict[str, object]:
    """A postgresql:// URL as Django's DATABASES entry; query parameters become libpq options.

    `password` is for a URL without one. Raises ImproperlyConfigured for any other URL, without
    repeating it: a password may be in it.
    """
    try:
        url = urlsplit(with_password(text(name, default), password))
        port = str(url.port or "")
        options = _options(url.query)
    except ValueError:
        raise _no_database(name) from None
    if url.scheme not in {"postgresql", "postgres"} or not url.path.strip("/") or url.fragment:
        raise _no_database(name)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(url.path[1:]),
        "USER": unquote(url.username or ""),
        "PASSWORD": unquote(url.password or ""),
        "HOST": url.hostname or "",
        "PORT": port,
        "OPTIONS": options,
    }


def _options(query: str) -> dict[str, str]:
    """The query's parameters; ValueError for one without a value, which would go unnoticed."""
    options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else [])
    if not all(options.values()):
        raise ValueError(query)
    return options


def _no_database(name: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(
        f"{name} must look like postgresql://user:password@host:port/name?option=value, "
        "with %-escapes for special characters."
    )
