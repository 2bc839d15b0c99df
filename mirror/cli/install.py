"""mirror install, mirror uninstall."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from mirror.cli.words import say, show
from mirror.config import Settings, load_settings
from mirror.errors import ConfigError
from mirror.mapping import Mapping, load_mapping
from mirror.postgres import connect_blocking, refuse_one_database, refuse_pooled_host
from mirror.source import install as source_side
from mirror.source.projection import look
from mirror.target import install as target_side
from mirror.target.topics import refuse_ambiguous
from mirror.translation import translated

Commands = Any  # argparse names its own type privately
ID_TYPES = ("uuid", "text", "integer", "bigint")


def register(commands: Commands) -> None:
    install = commands.add_parser("install", help="put the schema in place (idempotent)")
    install.add_argument("side", nargs="?", choices=("source", "target"), help="only this side")
    install.add_argument("--print", action="store_true", dest="show", help="show the SQL, touch nothing")
    for name, column in (("user", "users.id"), ("trip", "trips.id")):
        text = f"the type of {column}, when the source is not to be asked (install target)"
        install.add_argument(f"--{name}-id", choices=ID_TYPES, help=text)
    text = "adopt tables that are there already, also when others lose rights on them (install target)"
    install.add_argument("--take-rights", action="store_true", help=text)
    install.set_defaults(act=_install)
    uninstall = commands.add_parser("uninstall", help="take the schema away again")
    uninstall.add_argument("side", nargs="?", choices=("source", "target"), help="only this side")
    uninstall.set_defaults(act=_uninstall)


def _install(arguments: argparse.Namespace) -> int:
    settings = load_settings()
    mapping = load_mapping(settings.config)
    types = _given_types(arguments)
    if not arguments.show and arguments.side != "source":
        target = settings.target()  # said before the first of the two is touched
        if arguments.side is None:
            refuse_one_database(settings.source(), target)
    if types is not None:
        _install_target(settings, mapping, types, arguments)
        return 0
    with _source(settings) as source:
        if arguments.side != "source":
            types = look(source, mapping).types
            refuse_ambiguous(mapping.access, types["trip_id"])  # before the source is touched
        if arguments.side != "target":
            _install_source(mapping, source, show_only=arguments.show)
        if types is not None:
            _install_target(settings, mapping, types, arguments)
    return 0


def _given_types(arguments: argparse.Namespace) -> dict[str, str] | None:
    """Whoever gives the types of the ids needs no source; a daemon with other types is refused by the target."""
    user_id, trip_id = arguments.user_id, arguments.trip_id
    if user_id is None and trip_id is None:
        return None
    if arguments.side != "target" or user_id is None or trip_id is None:
        raise ConfigError("--user-id and --trip-id go together, with `mirror install target`")
    return {"user_id": user_id, "trip_id": trip_id, "created_by": user_id}


def _install_source(mapping: Mapping, source: psycopg.Connection[Any], *, show_only: bool) -> None:
    if show_only:
        show(f"-- The source: run this in the primary.\n{source_side.script(source, mapping)}")
    else:
        source_side.install(source, mapping, say)


def _install_target(settings: Settings, mapping: Mapping, types: dict[str, str], arguments: argparse.Namespace) -> None:
    if arguments.show:
        show(f"-- The target: run this in Supabase.\n{target_side.script(types, mapping)}")
        return
    with connect_blocking(settings.target(), "target") as target:
        target_side.install(target, types, mapping, say, take_rights=arguments.take_rights)


def _uninstall(arguments: argparse.Namespace) -> int:
    settings = load_settings()
    url = settings.target() if arguments.side != "source" else None
    if arguments.side != "target":
        with _source(settings) as source:
            source_side.uninstall(source, say)
    if url is not None:
        with connect_blocking(url, "target") as target:
            target_side.uninstall(target, say)
    return 0


@contextmanager
def _source(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    url = settings.source()
    refuse_pooled_host(url)
    with connect_blocking(url, "source") as connection, translated("source"):
        yield connection
