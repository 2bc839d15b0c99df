"""Settings from the environment. Checked once, at the edge; frozen inside.

A name that nobody knows is an error with the nearest known one in the message: a misspelt setting that is ignored
silently is how a reconcile interval stays at its default for a year. No message quotes a value: it may be a secret that
ended up in the wrong place.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from collections.abc import Mapping as AbcMapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic.fields import FieldInfo

from mirror.errors import ConfigError
from mirror.https import A_KEY, A_PROJECT, Https
from mirror.tls import refuse_unverified

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|min|h)?")
_SUFFIXES = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
# What Kubernetes puts into the environment of every pod beside a service whose name begins with "mirror".
_KUBERNETES = re.compile(r"MIRROR_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")
_TEST_BED = "MIRROR_TEST_"
_POSTGRES_URL = "a Postgres URL like postgresql://user:password@host:5432/database"
_WHERE_SUPABASE = "the Postgres URL of Supabase: direct, or the session pooler on port 5432"
_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?", re.ASCII)
INSTALL_BY_HAND = "Paste what `mirror install target --print` says into Supabase's SQL editor"


def parse_seconds(value: object) -> object:
    """`10`, `10s`, `500ms`, `2m`, `1h`."""
    if not isinstance(value, str):
        return value
    found = _DURATION.fullmatch(value)
    if found is None:
        raise ValueError("no duration")
    return float(found[1]) * _SUFFIXES[found[2] or "s"]


def _when(value: str) -> str:
    from apscheduler.triggers.cron import CronTrigger  # noqa: PLC0415 - only who sets it pays for the import

    if value != "off" and not _DURATION.fullmatch(value):
        CronTrigger.from_crontab(value, timezone="UTC")
    return value


def _hard_to_guess(token: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]{16,}", token.get_secret_value(), re.ASCII):
        raise ValueError("too easy to guess, or nothing that a header can carry")
    return token


def _names(value: object) -> object:
    if not isinstance(value, str):
        return value
    names = frozenset(name.strip().lower() for name in value.split(","))
    if not all(map(_HOST_NAME.fullmatch, names)):
        raise ValueError("no host names")
    return names


Seconds = Annotated[float, BeforeValidator(parse_seconds)]


class Settings(BaseModel):
    """What the environment says. The README's table is tested against these fields; a description ends the sentence
    "NAME must be ..."."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    source_url: SecretStr | None = Field(None, validation_alias="MIRROR_SOURCE_URL", description=_POSTGRES_URL)
    target_url: SecretStr | None = Field(None, validation_alias="MIRROR_TARGET_URL", description=_POSTGRES_URL)
    supabase_url: str | None = Field(None, validation_alias="SUPABASE_URL", description=A_PROJECT)
    supabase_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_ROLE_KEY"),
        description=A_KEY,
    )
    allow_unverified_tls: Literal["yes", "no"] = Field(
        "no", validation_alias="MIRROR_ALLOW_UNVERIFIED_TLS", description="yes or no"
    )
    config: Path | None = Field(None, validation_alias="MIRROR_CONFIG", description="the path of the mapping file")
    http_host: str = Field(
        "127.0.0.1", validation_alias="MIRROR_HTTP_HOST", description="the address to serve on, such as 127.0.0.1"
    )
    http_hosts: Annotated[frozenset[str], BeforeValidator(_names)] = Field(
        frozenset(),
        validation_alias="MIRROR_HTTP_HOSTS",
        description="host names without a port, separated by commas, such as mirror, mirror.example.org",
    )
    http_port: int = Field(
        9464, ge=0, le=65535, validation_alias="MIRROR_HTTP_PORT", description="a port number, from 0 (any) to 65535"
    )
    admin_token: Annotated[SecretStr, AfterValidator(_hard_to_guess)] | None = Field(
        None,
        validation_alias="MIRROR_ADMIN_TOKEN",
        description="16 or more printable characters without a space, such as what `openssl rand -hex 24` says",
    )
    reconcile_cron: Annotated[str, AfterValidator(_when)] = Field(
        "*/15 * * * *",
        validation_alias="MIRROR_RECONCILE_CRON",
        description="five fields of cron such as */15 * * * *, an interval such as 30m, or off",
    )
    reconcile_rows_per_s: int = Field(
        200_000,
        ge=1,
        validation_alias="MIRROR_RECONCILE_ROWS_PER_SECOND",
        description="a whole number of rows, 1 or more",
    )
    brake_percent: float = Field(
        20, ge=0, le=100, validation_alias="MIRROR_BRAKE_PERCENT", description="a share from 0 to 100"
    )
    poll_interval_s: Seconds = Field(
        5.0,
        gt=0,
        le=3600,
        validation_alias="MIRROR_POLL_INTERVAL",
        description="a duration such as 500ms, 5s or 1m, more than 0 and at most 1h",
    )
    heartbeat_interval_s: Seconds = Field(
        10.0,
        gt=0,
        le=86400,
        validation_alias="MIRROR_HEARTBEAT_INTERVAL",
        description="a duration such as 10s or 5m, more than 0 and at most 24h",
    )
    stale_after: Seconds | None = Field(
        None,
        gt=0,
        le=86400,
        validation_alias="MIRROR_STALE_AFTER",
        description="a duration such as 60s or 5m, longer than the heartbeat interval and at most 24h",
    )
    batch_rows: int = Field(
        5000,
        ge=1,
        le=50_000,
        validation_alias="MIRROR_BATCH_ROWS",
        description="a whole number from 1 to 50000",
    )
    log_format: Literal["auto", "human", "json"] = Field(
        "auto", validation_alias="MIRROR_LOG_FORMAT", description="auto, human or json"
    )

    @property
    def stale_after_s(self) -> float:
        """Older than this, the target is called stale: some heartbeats in a row must have been missed."""
        return self.stale_after or max(60.0, 3 * self.heartbeat_interval_s)

    def source(self) -> str:
        if self.source_url is None:
            raise ConfigError(
                "MIRROR_SOURCE_URL is not set", hint="Set it to the direct (not pooled) URL of the primary."
            )
        return self.source_url.get_secret_value()

    def target_way(self) -> str | Https:
        """A Postgres URL where there is one."""
        if self.target_url is not None:
            return self.target_url.get_secret_value()
        if self.supabase_url is None:
            raise ConfigError(
                "MIRROR_TARGET_URL is not set",
                hint=f"Set it to {_WHERE_SUPABASE}; without one, set SUPABASE_URL and SUPABASE_SECRET_KEY.",
            )
        if self.supabase_key is None:
            raise ConfigError(
                "SUPABASE_URL is set, SUPABASE_SECRET_KEY is not",
                hint="Supabase shows it under Project Settings, API Keys: a secret key, sb_secret_...",
            )
        return Https.checked(self.supabase_url, self.supabase_key)

    def target(self) -> str:
        """For what only SQL can do."""
        way = self.target_way()
        if isinstance(way, Https):
            raise ConfigError(
                "MIRROR_TARGET_URL is not set, and through HTTPS nothing can be installed or taken away",
                hint=f"{INSTALL_BY_HAND}; the source's side is `mirror install source`.",
            )
        return way


def setting_names() -> list[str]:
    return [name for field in Settings.model_fields.values() for name in _aliases(field.validation_alias)]


def _aliases(alias: object) -> list[str]:
    return [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [str(alias)]


def load_settings(environ: AbcMapping[str, str] | None = None) -> Settings:
    """An empty value counts as none; space around one is what files and shells leave behind."""
    environ = os.environ if environ is None else environ
    known = setting_names()
    for name in environ:
        if name.startswith("MIRROR_") and name not in known and not _is_somebody_elses(name):
            raise ConfigError(f"{name} is not a setting of the mirror", hint=nearest(name, known))
    given = {name: value for field in Settings.model_fields.values() for name, value in _given(field, environ)[:1]}
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        raise _sentence(error) from None  # the cause would carry the value, which may be a secret
    if settings.allow_unverified_tls == "no":
        for url, name in ((settings.source_url, "MIRROR_SOURCE_URL"), (settings.target_url, "MIRROR_TARGET_URL")):
            if url is not None:
                refuse_unverified(url.get_secret_value(), name)
    return settings


def _given(field: FieldInfo, environ: AbcMapping[str, str]) -> list[tuple[str, str]]:
    """Of two names for the same thing the first counts."""
    return [(name, value) for name in _aliases(field.validation_alias) if (value := environ.get(name, "").strip())]


def _is_somebody_elses(name: str) -> bool:
    return name.startswith(_TEST_BED) or _KUBERNETES.fullmatch(name) is not None


def _sentence(error: ValidationError) -> ConfigError:
    name = str(error.errors(include_url=False, include_input=False, include_context=False)[0]["loc"][0])
    for field in Settings.model_fields.values():
        if name in _aliases(field.validation_alias):
            return ConfigError(f"{name} must be {field.description}")
    raise AssertionError(name)


def nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
