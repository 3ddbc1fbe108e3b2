"""Hostile text: what breaks out of quotes, formats, templates, terminals and the reader's eye.

One list for every identifier and every sentence that reaches a target or a page; not a test.
"""

from __future__ import annotations

NAME_BYTES = 63
"""What a PostgreSQL identifier holds (NAMEDATALEN - 1)."""

TEXTS: dict[str, str] = {
    "quote": "it's",
    "doubled quote": "''",
    "double quote": 'a"b',
    "doubled double quote": '""',
    "backslash": "a\\",
    "escaped quote": "a\\'b\\\"",
    "escape string": "E'\\x27; DROP ROLE canary; --'",
    "unicode string": "U&'\\0027'",
    "dollars": "$$; DROP ROLE canary; $$",
    "tagged dollars": "$body$ $body$",
    "ends a statement": "'; DROP ROLE canary; --",
    "ends an identifier": '"; DROP TABLE work.canary; --',
    "ends a call": "x'); DROP TABLE work.canary; SELECT ('",
    "comment": "a/*b*/--c",
    "python format": "%s %(x)s %%",
    "brace format": "{} {0} {name} {{",
    "server format": "%I %L %1$s",
    "newline": "a\n; DROP ROLE canary;\n--",
    "carriage return": "a\rb",
    "tab": "a\tb",
    "bell and backspace": "a\x07\x08b",
    "delete": "a\x7fb",
    "line separator": "a\u2028b",
    "terminal escape": "\x1b[2J\x1b]0;owned\x07",
    "single-byte terminal escape": "\x9b31m",
    "right to left": "\u202egpj.exe",
    "isolates": "\u2066a\u2069",
    "zero width": "a\u200bd\u200cm\u2060in",
    "byte order mark": "\ufeffa",
    "soft hyphen": "a\u00add",
    "look-alike": "раураl",  # the first five are Cyrillic
    "composed": "e\u0301",
    "emoji": "\U0001f525\U0001f468\u200d\U0001f469",
    "psql command": "\\! id",
    "psql variable": ":'password'",
    "curly template": "{{7*7}}",
    "dollar template": "${7*7} $(id) `id`",
    "django template": "{% debug %}",
    "markup": "<script>alert(1)</script>",
    "attribute": "\" onmouseover='alert(1)",
    "address": "javascript:alert(1)",
    "formula": "=1+1",
    "header": "a\r\nBcc: mallory@example.com",
    "path": "../../etc/passwd",
    "reserved word": "select",
    "everyone": "PUBLIC",
    "nobody": "null",
    "upper case": "Orders",
    "space": " ",
    "spaces around": "  a  ",
    "dot": "public.orders",
    "server's own prefix": "pg_class",
    "comma": "a, b",
    "digits": "1",
    "minus": "--help",
    "63 bytes": "x" * 63,
    "multi-byte at the cut": "x" + "é" * 31,
}

TOO_MUCH: dict[str, str] = {
    "empty": "",
    "NUL": "a\0b",
    "64 bytes": "x" * 64,
    "multi-byte over the cut": "é" * 32,
    "half a surrogate": "a\ud800",
}
"""What no identifier can be."""

ALL = TEXTS | TOO_MUCH
