"""Log lines: JSON for machines, one short line for people."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from mirror.ops import logs


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before[0], before[1]


def test_json_carries_the_fields() -> None:
    stream = io.StringIO()
    logs.configure("auto", stream)
    logging.getLogger("mirror.x").info("batch", extra={"entries": 3, "rows": {"users": "1 upsert"}})
    line = json.loads(stream.getvalue())
    assert (line["message"], line["level"], line["entries"], line["rows"]) == (
        "batch",
        "info",
        3,
        {"users": "1 upsert"},
    )
    assert line["at"].endswith("+00:00")


def test_people_get_one_line() -> None:
    stream = io.StringIO()
    logs.configure("human", stream)
    logging.getLogger("mirror.x").warning("starting over", extra={"error": "gone", "rows": {"users": "1 upsert"}})
    assert stream.getvalue().strip().endswith("WARNING starting over  error=gone  rows=users:1 upsert")


HOSTILE = "Rome\x1b[2J\u202e\x9b31m\u200f\nlevel=fine\u2028\x85\u061c"


def test_what_a_name_says_is_not_said_to_a_terminal() -> None:
    stream = io.StringIO()
    logs.configure("human", stream)
    try:
        int(HOSTILE)
    except ValueError:
        fields = {"error": HOSTILE, "keys": {HOSTILE: [HOSTILE]}, "list": [HOSTILE]}
        logging.getLogger("mirror.x").exception(HOSTILE, extra=fields)
    said = stream.getvalue()
    assert all(line.isprintable() for line in said.split("\n")), said
    assert "Traceback" in said
    first = said.split("\n")[0]
    assert "error=Rome\\x1b[2J\\u202e\\x9b31m\\u200f\\nlevel=fine" in first


def test_json_is_ascii() -> None:
    stream = io.StringIO()
    logs.configure("json", stream)
    logging.getLogger("mirror.x").info(HOSTILE, extra={"error": HOSTILE})
    assert stream.getvalue().isascii()
    assert stream.getvalue()[:-1].isprintable()


def test_an_exception_is_told_in_both() -> None:
    for style in ("human", "json"):
        stream = io.StringIO()
        logs.configure(style, stream)
        try:
            int("odd")
        except ValueError:
            logging.getLogger("mirror.x").exception("broken")
        assert "ValueError: invalid literal" in stream.getvalue()


def test_chatty_libraries_are_quiet() -> None:
    stream = io.StringIO()
    logs.configure("json", stream)
    logging.getLogger("psycopg").warning("error ignored in postgresql://u:secret@h/db")
    logging.getLogger("uvicorn.error").info("Started")
    assert not stream.getvalue()
