"""The mapping, mirror.toml: where the three projections come from, and what the target is told. Checked once, at the
edge; frozen inside."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from mirror.config import Seconds, nearest
from mirror.errors import ConfigError
from mirror.tables import TABLES, Table

_Expression = Annotated[str, Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class UsersMapping(_Section):
    from_: _Expression = Field("public.users", alias="from")
    id: _Expression = '"id"'
    subject: _Expression | None = None
    email: _Expression = '"email"'
    username: _Expression = '"username"'
    where: _Expression = "true"


class TripsMapping(_Section):
    from_: _Expression = Field("public.trips", alias="from")
    id: _Expression = '"id"'
    name: _Expression = '"name"'
    created_by: _Expression = '"created_by"'
    where: _Expression = "true"


class MembershipsMapping(_Section):
    from_: _Expression = Field("public.trip_memberships", alias="from")
    trip_id: _Expression = '"trip_id"'
    user_id: _Expression = '"user_id"'
    role: _Expression = '"role"'
    status: _Expression = '"status"'
    where: _Expression = "true"


class TargetOptions(_Section):
    allow_cascade: tuple[_Expression, ...] = ()


_TOPIC = re.compile(r"[\w.:/@|~+=*{}-]{1,200}", re.ASCII)
_PLACES = re.compile(r"[{}*]")
_APART = re.compile(r"[}*][{*]")  # where one place ends and the next begins must be seen in the topic


def _topic(topic: str) -> str:
    """Exactly one {id}, at most one {epoch} and that after it, any number of *, each apart from the next."""
    rest = topic.replace("{epoch}", "", 1)
    if (
        not _TOPIC.fullmatch(topic)
        or _APART.search(topic)
        or topic.count("{id}") != 1
        or _PLACES.search(rest.replace("{id}", "").replace("*", ""))
        or "{epoch}" in topic.partition("{id}")[0]
    ):
        raise ValueError("no topic")
    return topic


def _own_topic(topic: str) -> str:
    if not _TOPIC.fullmatch(topic) or topic.count("{sub}") != 1 or _PLACES.search(topic.replace("{sub}", "")):
        raise ValueError("no topic")
    return topic


class AccessOptions(_Section):
    """Who counts as a member, and which channels members may enter."""

    active: Annotated[tuple[Annotated[str, Field(pattern=r"^[^$]{1,100}$")], ...], Field(min_length=1)] = (
        "active",
        "accepted",
    )
    topics: tuple[Annotated[str, AfterValidator(_topic)], ...] = ("trip:{id}",)
    send: tuple[Literal["broadcast", "presence"], ...] = ("broadcast", "presence")
    max_staleness: Annotated[Seconds, Field(gt=0, le=86400)] | None = None
    announce: Annotated[str, AfterValidator(_own_topic)] | None = None
    companions_see: tuple[Literal["username", "email", "subject"], ...] = ("username",)
    members_without_user: bool = False


class Mapping(_Section):
    """mirror.toml: where the three projections come from."""

    users: UsersMapping = UsersMapping()
    trips: TripsMapping = TripsMapping()
    trip_memberships: MembershipsMapping = MembershipsMapping()
    target: TargetOptions = TargetOptions()
    access: AccessOptions = AccessOptions()

    def expression(self, table: Table, column: str) -> str:
        section: Any = getattr(self, table.name)
        if table.name == "users" and column == "subject" and section.subject is None:
            return str(section.id)
        return str(getattr(section, column))

    def relation(self, table: Table) -> str:
        return str(getattr(self, table.name).from_)

    def where(self, table: Table) -> str:
        return str(getattr(self, table.name).where)

    def source_part(self) -> dict[str, Any]:
        """What the source side is rendered from, as stored beside it."""
        return {table.name: getattr(self, table.name).model_dump(by_alias=True) for table in TABLES}


def load_mapping(path: Path | None) -> Mapping:
    """The mapping in this file; without one, ./mirror.toml if there is one, else the defaults."""
    document = _document(path or Path("mirror.toml"), optional=path is None)
    path = path or Path("mirror.toml")
    for name, section in document.items():
        _check_names(path, name, section)
    try:
        return _sensible(path, Mapping.model_validate(document))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        section_name, key = (str(part) for part in first["loc"][:2])
        raise ConfigError(f"{path}: [{section_name}] {key} must be {_wanted(key)}") from None


def _sensible(path: Path, mapping: Mapping) -> Mapping:
    if mapping.access.members_without_user and mapping.users.subject is not None:
        raise ConfigError(
            f"{path}: [access] members_without_user and [users] subject do not go together: a subject is found in "
            "the user's row",
            hint="Take members_without_user away.",
        )
    return mapping


def _document(path: Path, *, optional: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if optional:
            return {}
        raise ConfigError(f"there is no file {path}", hint="MIRROR_CONFIG names the mapping file.") from error
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}", hint="MIRROR_CONFIG names the mapping file."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _check_names(path: Path, name: str, section: object) -> None:
    field = Mapping.model_fields.get(name)
    if field is None:
        raise ConfigError(f"{path}: [{name}] is not a section", hint=nearest(name, Mapping.model_fields))
    model = field.annotation
    if not isinstance(section, dict) or not isinstance(model, type) or not issubclass(model, BaseModel):
        raise ConfigError(f"{path}: {name} must be a section", hint=f"Write [{name}] on a line of its own.")
    known = [f.alias or n for n, f in model.model_fields.items()]
    for key in section:
        if key not in known:
            raise ConfigError(f"{path}: [{name}] {key} is not known", hint=nearest(key, known))


_WANTED = {
    "allow_cascade": 'a list of tables, such as ["public.messages"]',
    "active": 'a list of statuses, such as ["active", "accepted"]',
    "topics": 'a list of topics with one {id} each, perhaps * or {epoch} after it and apart from it: ["trip:{id}:*"]',
    "send": 'a list of "broadcast" and "presence", or an empty one',
    "max_staleness": 'a duration in quotes such as "30s", more than 0 and at most 24h',
    "announce": 'a topic with one {sub}, such as "user:{sub}"',
    "members_without_user": "true or false",
    "from": 'the name of a table in quotes, such as "public.users"',
}


def _wanted(key: str) -> str:
    return _WANTED.get(key, "an SQL expression in quotes, and not empty")
