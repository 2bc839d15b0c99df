"""The three mirrored tables. Everything else in the mirror is about these names and nothing about their content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TableName = Literal["users", "trips", "trip_memberships"]


@dataclass(frozen=True, slots=True)
class Table:
    name: TableName
    keys: tuple[str, ...]
    values: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return self.keys + self.values


USERS = Table("users", ("id",), ("subject", "email", "username"))
TRIPS = Table("trips", ("id",), ("name", "created_by"))
MEMBERSHIPS = Table("trip_memberships", ("trip_id", "user_id"), ("role", "status"))

TABLES = (USERS, TRIPS, MEMBERSHIPS)
