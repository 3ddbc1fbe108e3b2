"""Log lines carry where they come from and no secret, whichever logger wrote them."""

import io
import json
import logging

import pytest
import structlog

from debugflow.logging import configuration, configure

NAME = "tests.story"
URL = "postgresql://debugflow:sesame@db.example:5432/debugflow"


def formatter(*, as_json: bool) -> logging.Formatter:
    arguments = dict(configuration(level="INFO", json=as_json)["formatters"]["structured"])
    make = arguments.pop("()")
    made: logging.Formatter = make(**arguments)
    return made


@pytest.fixture
def written():
    """What a logger wrote, as text; the logger is this story's alone."""
    configure()
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter(as_json=True))
    logger = logging.getLogger(NAME)
    logger.addHandler(handler)
    logger.propagate, level = False, logger.level
    logger.setLevel("INFO")
    yield out
    logger.removeHandler(handler)
    logger.propagate = True
    logger.setLevel(level)


def test_both_kinds_of_logger_write_one_json_object_with_the_request(written):
    with structlog.contextvars.bound_contextvars(request_id="r-12345678"):
        logging.getLogger(NAME).info("Opened %s", "orders", extra={"grant": 12})
        structlog.get_logger(NAME).info("Opened", grant=12)
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["Opened orders", "Opened"]
    for line in lines:
        assert line["request_id"] == "r-12345678"
        assert line["grant"] == 12
        assert (line["level"], line["logger"]) == ("info", NAME)
        assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "PASSWORD",
        "client_secret",
        "access_token",
        "Authorization",
        "Set-Cookie",
        "scram_verifier",
    ],
)
@pytest.mark.parametrize("wrap", [lambda pair: pair, lambda pair: {"deep": [pair]}])
def test_values_under_a_secrets_name_are_hidden_at_any_depth(written, key, wrap):
    logging.getLogger(NAME).info("Signed in", extra=wrap({key: "sesame", "user": "alice"}))
    structlog.get_logger(NAME).info("Signed in", **wrap({key: "sesame", "user": "alice"}))
    assert "sesame" not in written.getvalue()
    assert written.getvalue().count("[hidden]") == 2
    assert written.getvalue().count("alice") == 2


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (URL, "postgresql://debugflow:[hidden]@db.example:5432/debugflow"),
        ("redis://:sesame@127.0.0.1:6379/0", "redis://:[hidden]@127.0.0.1:6379/0"),
        ("at redis://:ses@me@h/0 and more", "at redis://:[hidden]@h/0 and more"),
        ("https://example.org:8000/a@b", "https://example.org:8000/a@b"),
    ],
)
def test_passwords_inside_urls_are_hidden_and_the_rest_is_left(written, text, left):
    logging.getLogger(NAME).info("Cannot reach %s", text)
    structlog.get_logger(NAME).info("Cannot reach", address=[text])
    first, second = (json.loads(line) for line in written.getvalue().splitlines())
    assert first["event"] == f"Cannot reach {left}"
    assert second["address"] == [left]


@pytest.mark.parametrize("as_json", [True, False])
def test_tracebacks_are_redacted_and_show_no_local_variables(as_json):
    passphrase = "open sesame"
    try:
        raise RuntimeError(f"no answer from {URL} in {len(passphrase)} s")
    except RuntimeError as error:
        failure = (type(error), error, error.__traceback__)
    record = logging.LogRecord(NAME, logging.ERROR, __file__, 1, "Failed", (), failure)
    text = formatter(as_json=as_json).format(record)
    assert "RuntimeError: no answer from postgresql://debugflow:[hidden]@db" in text
    assert "sesame" not in text.replace('passphrase = "open sesame"', "")


def test_objects_are_redacted_as_the_text_they_become(written):
    class Connection:
        def __repr__(self):
            return f"<Connection {URL}>"

    logging.getLogger(NAME).info("Lost", extra={"connection": Connection(), "dsn": URL.encode()})
    assert "sesame" not in written.getvalue()
    assert "<Connection postgresql://debugflow:[hidden]@" in written.getvalue()


def test_line_breaks_cannot_forge_a_second_line(written):
    logging.getLogger(NAME).info("Asked by %s", 'alice"}\n{"event": "forged')
    assert len(written.getvalue().splitlines()) == 1


def test_loggers_with_handlers_of_their_own_are_brought_into_line():
    loggers = configuration(level="INFO", json=True)["loggers"]
    for name in ("django", "django.server", "uvicorn.access"):
        assert loggers[name] == {"handlers": [], "level": "NOTSET", "propagate": True}
