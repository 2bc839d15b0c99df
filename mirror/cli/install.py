"""mirror install, mirror uninstall."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import psycopg

from mirror.config import Mapping, Settings, load_mapping, load_settings
from mirror.postgres import connect_blocking, refuse_pooled_host
from mirror.source import install as source_side
from mirror.source.projection import look
from mirror.target import install as target_side

Commands = Any  # argparse names its own type privately


def register(commands: Commands) -> None:
    install = commands.add_parser("install", help="put the schema in place (idempotent)")
    install.add_argument("side", nargs="?", choices=("source", "target"), help="only this side")
    install.add_argument("--print", action="store_true", dest="show", help="show the SQL, touch nothing")
    install.set_defaults(act=_install)
    uninstall = commands.add_parser("uninstall", help="take the schema away again")
    uninstall.add_argument("side", nargs="?", choices=("source", "target"), help="only this side")
    uninstall.set_defaults(act=_uninstall)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _install(arguments: argparse.Namespace) -> int:
    settings = load_settings()
    mapping = load_mapping(settings.config)
    source = _source(settings)
    with source:
        if arguments.side != "target":
            if arguments.show:
                print(source_side.script(source, mapping))
            else:
                source_side.install(source, mapping, _say)
        if arguments.side != "source":
            _install_target(settings, mapping, source, show=arguments.show)
    return 0


def _install_target(settings: Settings, mapping: Mapping, source: psycopg.Connection[Any], *, show: bool) -> None:
    """The target's tables are made to match the keys of the source, so the source is looked at either way."""
    types = look(source, mapping).types
    if show:
        print(target_side.script(types, mapping))
        return
    with connect_blocking(settings.target(), "target") as target:
        target_side.install(target, types, mapping, _say)


def _uninstall(arguments: argparse.Namespace) -> int:
    settings = load_settings()
    if arguments.side != "target":
        with _source(settings) as source:
            source_side.uninstall(source, _say)
    if arguments.side != "source":
        with connect_blocking(settings.target(), "target") as target:
            target_side.uninstall(target, _say)
    return 0


def _source(settings: Settings) -> psycopg.Connection[Any]:
    url = settings.source()
    refuse_pooled_host(url)
    return connect_blocking(url, "source")
