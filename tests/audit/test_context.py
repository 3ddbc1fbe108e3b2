"""The origin of the current work: bound, nested, restored, and never another thread's."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from audit import context


def test_without_a_binding_there_is_no_origin():
    assert context.current() == context.Origin()


def test_an_inner_binding_replaces_the_outer_one_and_ends_with_its_block():
    with context.bind(request_id="outer", address="192.0.2.1", agent="psql") as outer:
        with context.bind(request_id="inner"):
            assert context.current() == context.Origin(request_id="inner")
        assert context.current() == outer
    assert context.current() == context.Origin()


def test_an_error_ends_the_binding_too():
    with pytest.raises(RuntimeError), context.bind(request_id="short-lived"):
        raise RuntimeError
    assert context.current() == context.Origin()


def test_another_thread_does_not_inherit_it():
    with context.bind(request_id="mine"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(context.current).result() == context.Origin()
