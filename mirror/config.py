"""Settings from the environment, the mapping from mirror.toml. Checked once, at the edge; frozen inside.

A name that nobody knows is an error with the nearest known one in the message: a misspelt setting that is ignored
silently is how a reconcile interval stays at its default for a year.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping as AbcMapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from mirror.errors import ConfigError
from mirror.tables import TABLES, Table

_SUFFIXES = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def _seconds(value: object) -> object:
    """`10`, `10s`, `500ms`, `2m`, `1h`."""
    if isinstance(value, str):
        number = value.strip().rstrip("smhin")
        suffix = value.strip()[len(number) :]
        if suffix in _SUFFIXES:
            return float(number) * _SUFFIXES[suffix]
    return value


Seconds = Annotated[float, BeforeValidator(_seconds)]


class Settings(BaseModel):
    """What the environment says. The README's table is tested against these fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    source_url: SecretStr | None = Field(None, validation_alias="MIRROR_SOURCE_URL")
    target_url: SecretStr | None = Field(None, validation_alias="MIRROR_TARGET_URL")
    supabase_url: str | None = Field(None, validation_alias="SUPABASE_URL")
    supabase_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_ROLE_KEY")
    )
    config: Path | None = Field(None, validation_alias="MIRROR_CONFIG")
    http_host: str = Field("127.0.0.1", validation_alias="MIRROR_HTTP_HOST")
    http_port: int = Field(9464, ge=0, le=65535, validation_alias="MIRROR_HTTP_PORT")
    admin_token: SecretStr | None = Field(None, validation_alias="MIRROR_ADMIN_TOKEN")
    reconcile_cron: str = Field("*/15 * * * *", validation_alias="MIRROR_RECONCILE_CRON")
    poll_interval_s: Seconds = Field(5.0, gt=0, le=3600, validation_alias="MIRROR_POLL_INTERVAL")
    heartbeat_interval_s: Seconds = Field(10.0, gt=0, le=86400, validation_alias="MIRROR_HEARTBEAT_INTERVAL")
    batch_rows: int = Field(5000, ge=1, le=50_000, validation_alias="MIRROR_BATCH_ROWS")
    log_format: Literal["auto", "human", "json"] = Field("auto", validation_alias="MIRROR_LOG_FORMAT")

    def source(self) -> str:
        if self.source_url is None:
            raise ConfigError(
                "MIRROR_SOURCE_URL is not set", hint="Set it to the direct (not pooled) URL of the primary."
            )
        return self.source_url.get_secret_value()

    def target(self) -> str:
        if self.target_url is not None:
            return self.target_url.get_secret_value()
        if self.supabase_url is not None:
            raise ConfigError(
                "applying through HTTPS (SUPABASE_URL) is not available in this version",
                hint="Set MIRROR_TARGET_URL to the Postgres URL of Supabase: direct, or the session pooler on port 5432.",
            )
        raise ConfigError(
            "MIRROR_TARGET_URL is not set",
            hint="Set it to the Postgres URL of Supabase: direct, or the session pooler on port 5432.",
        )


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class UsersMapping(_Section):
    from_: str = Field("public.users", alias="from")
    id: str = '"id"'
    subject: str | None = None
    email: str = '"email"'
    username: str = '"username"'
    where: str = "true"


class TripsMapping(_Section):
    from_: str = Field("public.trips", alias="from")
    id: str = '"id"'
    name: str = '"name"'
    created_by: str = '"created_by"'
    where: str = "true"


class MembershipsMapping(_Section):
    from_: str = Field("public.trip_memberships", alias="from")
    trip_id: str = '"trip_id"'
    user_id: str = '"user_id"'
    role: str = '"role"'
    status: str = '"status"'
    where: str = "true"


class TargetOptions(_Section):
    allow_cascade: tuple[str, ...] = ()


class Mapping(_Section):
    """mirror.toml: where the three projections come from."""

    users: UsersMapping = UsersMapping()
    trips: TripsMapping = TripsMapping()
    trip_memberships: MembershipsMapping = MembershipsMapping()
    target: TargetOptions = TargetOptions()

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


def _explain(error: ValidationError, where: str) -> ConfigError:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    return ConfigError(f"{where}{name}: {first['msg'][0].lower()}{first['msg'][1:]}")


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."


def setting_names() -> list[str]:
    names: list[str] = []
    for field in Settings.model_fields.values():
        alias = field.validation_alias
        names += [str(c) for c in alias.choices] if isinstance(alias, AliasChoices) else [str(alias)]
    return names


def load_settings(environ: AbcMapping[str, str] | None = None) -> Settings:
    environ = os.environ if environ is None else environ
    known = setting_names()
    given = {name: value for name, value in environ.items() if name in known and value != ""}
    for name in environ:
        if name.startswith("MIRROR_") and name not in known and not name.startswith("MIRROR_TEST_"):
            raise ConfigError(f"{name} is not a setting of the mirror", hint=_nearest(name, known))
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        raise _explain(error, "") from None  # the cause would carry the value, which may be a secret


def load_mapping(path: Path | None) -> Mapping:
    """The mapping in this file; without one, ./mirror.toml if there is one, else the defaults."""
    if path is None:
        path = Path("mirror.toml")
        if not path.exists():
            return Mapping()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}", hint="MIRROR_CONFIG names the mapping file."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    for name, section in document.items():
        _check_names(path, name, section)
    try:
        return Mapping.model_validate(document)
    except ValidationError as error:
        raise _explain(error, f"{path}: ") from error


def _check_names(path: Path, name: str, section: object) -> None:
    field = Mapping.model_fields.get(name)
    if field is None:
        raise ConfigError(f"{path}: [{name}] is not a section", hint=_nearest(name, list(Mapping.model_fields)))
    model = field.annotation
    if isinstance(section, dict) and isinstance(model, type) and issubclass(model, BaseModel):
        known = [f.alias or n for n, f in model.model_fields.items()]
        for key in section:
            if key not in known:
                raise ConfigError(f"{path}: [{name}] {key} is not known", hint=_nearest(key, known))
