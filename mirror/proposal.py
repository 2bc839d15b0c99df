"""A setting of mirror.toml as a person can paste it: whatever names and filters stand in it, it is valid TOML and keeps
what is asked for already."""

from __future__ import annotations

import json


def setting(section: str, key: str, value: str) -> str:
    return f"in mirror.toml, under [{section}]: {key} = {toml(value)}"


def toml(value: str) -> str:
    """Easy to read where it can be: SQL quotes names with the double quotes of a TOML string."""
    if '"' in value and "'" not in value and value.isprintable():
        return f"'{value}'"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def narrowed(where: str, condition: str) -> str:
    """Both: the present filter, and one more condition."""
    return condition if where == "true" else f"({where}) and {condition}"
