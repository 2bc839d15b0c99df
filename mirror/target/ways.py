"""The two ways to the target: a Postgres connection, or HTTPS. Where there is a Postgres URL it is taken: it is faster,
and many have SUPABASE_URL set for something else."""

from __future__ import annotations

from typing import Literal

from pydantic import SecretStr

from mirror.config import Settings
from mirror.errors import ConfigError
from mirror.https import Https
from mirror.postgres import parameters, refuse_one_database
from mirror.target.direct import Direct
from mirror.target.key import claims
from mirror.target.target import Transport

NOTICED_WITHIN_S = 30.0  # most need less than one; a large schema takes seconds to read


def check(settings: Settings) -> Literal["direct", "https"]:
    """What can be told without asking anybody: which of the two it is, and that it could work."""
    way = settings.target_way()
    if isinstance(way, Https):
        role = (claims(way.key.get_secret_value()) or {}).get("role", "service_role")
        if role != "service_role":
            raise ConfigError(
                f"SUPABASE_SECRET_KEY is the project's {role} key", hint="Use a secret key, or the service_role key."
            )
        return "https"
    parameters(way, "target")
    return "direct"


def key(settings: Settings) -> SecretStr | None:
    """The key that is used: one that stands in the environment for something else may end."""
    way = settings.target_way()
    return way.key if isinstance(way, Https) else None


def refuse_one_side(settings: Settings) -> None:
    """Source and target are two databases. Through HTTPS that cannot be seen beforehand; installing there is a person's
    work."""
    way = settings.target_way()
    if not isinstance(way, Https):
        refuse_one_database(settings.source(), way)


async def open_transport(settings: Settings, noticed_within_s: float = NOTICED_WITHIN_S) -> Transport:
    """`noticed_within_s`: how long Supabase's API may take to know functions that were installed just now."""
    check(settings)
    way = settings.target_way()
    if not isinstance(way, Https):
        return await Direct.open(way)
    from mirror.target.rest import Rest  # noqa: PLC0415 - a third of a second, for those who go this way

    return Rest(way, noticed_within_s)
