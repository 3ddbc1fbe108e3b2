"""What a level comes to, in a sentence: of real levels, and nothing that is not surely so."""

from __future__ import annotations

import pytest

from approvals import provisioning
from approvals.provisioning.postgresql.words import in_words
from tests.approvals.provisioning.conftest import Target
from tests.approvals.provisioning.test_summary import SUPPORT, level

HEADER = ("member of support", "signs in to orders", "at most 10 connections")
CONNECTS = "server: CONNECT on 1 database: orders"


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([], ""),
        ([*HEADER, CONNECTS], "Reads and changes nothing."),
        (
            [*HEADER, CONNECTS, "orders: SELECT on 3 tables of schema public: a, b, c"],
            "Reads 3 tables in orders; changes nothing.",
        ),
        (
            ["orders: DELETE, INSERT, SELECT, UPDATE on 2 tables of schema shop: a, b"],
            "Reads and changes 2 tables in orders.",
        ),
        (
            [
                "orders: SELECT on 2 tables of schema a: x, y",
                "orders: SELECT on 1 view of schema b: z [0123456789ab]",
                "orders: INSERT on 1 table of schema c (as everyone may): w",
                "billing: SELECT on 1 table of schema public: bills",
            ],
            "Reads 2 tables and 1 view in orders; changes 1 table in orders;"
            " reads 1 table in billing.",
        ),
        (
            ["orders: CREATE, USAGE on 1 schema: shop"],
            "Makes things of its own in orders.",
        ),
        (
            ["orders: EXECUTE on 2 SECURITY DEFINER functions of schema shop: f() as x [1], g()"],
            "Runs 2 functions in orders with the rights of whoever made them.",
        ),
        (["support inherits team", CONNECTS], "Reads and changes nothing."),
    ],
)
def test_what_the_lines_come_to(lines: list[str], sentence: str):
    assert in_words(lines) == sentence


@pytest.mark.parametrize(
    "line",
    [
        "support inherits pg_monitor",
        "orders: USAGE on 1 sequence of schema shop: numbers",
        "orders: EXECUTE on 1 function of schema pg_catalog: lo_import(text)",
        "orders: UPDATE on 1 large object: 4242",
        "orders: SELECT on 1 future table: made by postgres",
        "orders: USAGE on 1 foreign server: elsewhere",
        "server: SET on 1 parameter: session_replication_role",
        "and 12 more lines (SHA-256 0123456789abcdef)",
        "something that a later version may write",
        "orders: MAINTAIN on 1 table of schema shop: a",
    ],
)
def test_it_never_says_that_nothing_is_changed_unless_that_is_sure(line: str):
    reads = "orders: SELECT on 1 table of schema shop: a"
    assert "nothing" in in_words([*HEADER, reads])
    assert "nothing" not in in_words([*HEADER, reads, line])


def test_names_that_look_like_lines_say_nothing_new():
    hostile = 'orders: SELECT on 1 table of schema shop: "x: DELETE on 9 tables of schema y: z"'
    assert in_words([hostile]) == "Reads 1 table in orders; changes nothing."


def test_a_real_level_is_told(target: Target):
    with level(target, "GRANT USAGE ON SCHEMA shop TO support"):
        before = in_words(target.provisioner.summarise(SUPPORT))
        target.tell("GRANT SELECT ON shop.items TO support", database="orders")
        assert "1 table" in in_words(target.provisioner.summarise(SUPPORT))
        target.tell("GRANT DELETE ON shop.items TO support", database="orders")
        after = in_words(target.provisioner.summarise(SUPPORT))
        assert "changes nothing" not in after
        assert "changes 1 table" in after
        assert before != after


def test_a_kind_without_an_opinion_says_nothing():
    assert provisioning.get("memory").in_words(["reads everything"]) == ""
