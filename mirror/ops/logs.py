"""One line per thing that happened: for people on a terminal, JSON elsewhere. Nothing is logged that was not put there
by name, so no URL and no key can slip in."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

from mirror.plain import plain

_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {"message", "asctime", "taskName"}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


class Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"at": at, "level": record.levelname.lower(), "message": record.getMessage(), **_fields(record)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class Human(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        said = "".join(f"  {name}={plain(_short(value))}" for name, value in _fields(record).items())
        level = "" if record.levelno <= logging.INFO else f"{record.levelname} "
        line = f"{at} {level}{plain(record.getMessage())}{said}"
        trace = self.formatException(record.exc_info).split("\n") if record.exc_info else []
        return "\n".join([line, *map(plain, trace)])


def _short(value: object) -> str:
    return " ".join(f"{k}:{v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def configure(style: Literal["auto", "human", "json"], stream: TextIO = sys.stderr) -> None:
    human = style == "human" or (style == "auto" and stream.isatty())
    logs = logging.StreamHandler(stream)
    logs.setFormatter(Human() if human else Json())
    logging.basicConfig(level=logging.INFO, handlers=[logs], force=True)
    for noisy in ("psycopg", "uvicorn", "uvicorn.error", "apscheduler", "httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
