"""What Supabase's advisors say of a project right after `mirror install target`: nothing that README does not name with
its reason. Asked by the command line of Supabase itself, where npm can bring it, and by what its lints look for."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mirror.mapping import AccessOptions, Mapping
from mirror.target import install as target_side
from tests.bed.target_side import UUIDS, as_role, put_in_place

pytestmark = pytest.mark.sql

CLI = Path(__file__).parents[2] / ".venv" / "node" / "node_modules" / ".bin" / "supabase"
README = Path(__file__).parents[2] / "README.md"
LOUD = Mapping(access=AccessOptions(topics=("trip:{id}:{epoch}", "trip:{id}"), announce="user:{sub}"))
MAPPINGS = {"default": Mapping(), "announcing": LOUD}


def by_design() -> dict[str, set[str]]:
    """README's table: a finding, the objects that it names, and why."""
    table = README.read_text().partition("| finding of the advisors |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1:4] for line in table.splitlines()[2:]]
    assert all(why.strip() for _, _, why in rows)
    return {finding.strip(" `"): set(re.findall(r"`([^`]+)`", objects)) for finding, objects, _ in rows}


@pytest.fixture(scope="session")
def supabase() -> Path:
    """The command line of Supabase, as tests/node/package-lock.json names it."""
    if not CLI.exists():
        pytest.skip("the npm package supabase is not here: `make node` brings it")
    return CLI


def run(program: Path, directory: Path, *arguments: str, url: str) -> subprocess.CompletedProcess[str]:
    command = [str(program), "db", *arguments, "--db-url", f"{url}?sslmode=disable", "--workdir", str(directory)]
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "DO_NOT_TRACK": "1",
        "SUPABASE_TELEMETRY_DISABLED": "1",
    }
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environ)


@pytest.fixture(params=list(MAPPINGS))
def mapping(request: pytest.FixtureRequest) -> Mapping:
    return MAPPINGS[request.param]


@pytest.fixture
def installed(target_url: str, mapping: Mapping) -> str:
    put_in_place(as_role(target_url, "hosted_postgres"), mapping=mapping)
    return target_url


@pytest.fixture
def connection(installed: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(installed, autocommit=True) as connection:
        yield connection


def test_the_script_is_a_migration(supabase: Path, target_url: str, tmp_path: Path, mapping: Mapping) -> None:
    migrations = tmp_path / "supabase" / "migrations"
    migrations.mkdir(parents=True)
    (tmp_path / "supabase" / "config.toml").write_text('project_id = "mirror"\n')
    (migrations / "20260101000000_mirror.sql").write_text(target_side.script(UUIDS, mapping))
    url = as_role(target_url, "hosted_postgres")
    done = run(supabase, tmp_path, "push", "--yes", url=url)
    assert done.returncode == 0, done.stderr
    assert put_in_place(url, mapping=mapping) == ["target: everything is in place already."]


def test_the_advisors_find_what_readme_names(supabase: Path, installed: str, tmp_path: Path) -> None:
    url = as_role(installed, "hosted_postgres")
    done = run(supabase, tmp_path, "advisors", "--level", "info", "--output-format", "json", url=url)
    assert done.returncode == 0, done.stderr
    known, found = by_design(), json.loads(done.stdout)["results"]
    assert found, "what README names is found by those that look"
    for finding in found:
        assert finding["name"] in known, finding
        assert any(name in finding["detail"] for name in known[finding["name"]]), finding


def test_the_linter_finds_nothing(
    supabase: Path, installed: str, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    available = "select from pg_available_extensions where name = 'plpgsql_check'"
    if connection.execute(available).fetchone() is None:
        pytest.skip("this server has no plpgsql_check (Debian: postgresql-15-plpgsql-check, target major 15)")
    done = run(supabase, tmp_path, "lint", "--schema", "public,mirror", "--output-format", "json", url=installed)
    assert done.returncode == 0, done.stderr + done.stdout
    found = json.loads(done.stdout)["results"]
    serious = [(f["function"], i["message"]) for f in found for i in f["issues"] if i["level"] == "error"]
    assert serious == []


# What five of the advisors' lints look for, in words of our own: the command line knows 0028 and 0029 not yet.
LINTS = {
    "function_search_path_mutable": """
        select p.proname::text from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
        where n.nspname in ('public', 'mirror')
          and not exists (select from unnest(p.proconfig) as s where s like 'search\\_path=%')""",
    "anon_security_definer_function_executable": """
        select p.proname::text from pg_proc as p where p.pronamespace = 'public'::regnamespace and p.prosecdef
          and has_function_privilege('anon', p.oid, 'execute')""",
    "authenticated_security_definer_function_executable": """
        select p.proname::text from pg_proc as p where p.pronamespace = 'public'::regnamespace and p.prosecdef
          and has_function_privilege('authenticated', p.oid, 'execute')""",
    "rls_enabled_no_policy": """
        select c.oid::regclass::text from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
        where n.nspname in ('public', 'mirror') and c.relkind in ('r', 'p') and c.relrowsecurity
          and not exists (select from pg_policy as p where p.polrelid = c.oid)""",
    "unused_index": """
        select i.indexrelname::text from pg_stat_user_indexes as i join pg_index as x using (indexrelid)
        where i.schemaname in ('public', 'mirror') and i.idx_scan = 0 and not x.indisunique and not x.indisprimary""",
}


@pytest.mark.parametrize("lint", list(LINTS))
def test_what_the_lints_look_for_is_named_in_readme(connection: psycopg.Connection[Any], lint: str) -> None:
    found = {name for (name,) in connection.execute(LINTS[lint].encode())}
    assert found == by_design().get(lint, set()), "README's table names exactly these"
