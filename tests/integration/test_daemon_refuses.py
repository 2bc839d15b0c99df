"""A daemon that cannot start says why in one sentence, with exit code 2. Nothing here depends on a version."""

import psycopg
import pytest

from tests.bed.daemons import SOFT, environ, install, process, running


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"MIRROR_SOURCE_URL": ""}, "MIRROR_SOURCE_URL is not set"),
        ({"MIRROR_SOURCE_URL": "mysql://u:hunter2@h/db"}, "MIRROR_SOURCE_URL is not a Postgres URL"),
        ({"MIRROR_SOURCE_URL": "postgresql://u:hunter2@[bad/db"}, "MIRROR_SOURCE_URL is not a Postgres URL"),
        ({"MIRROR_SOURCE_URL": "hunter2"}, "MIRROR_SOURCE_URL is not a Postgres URL"),
        ({"MIRROR_SOURCE_URL": "postgresql://u:hunter2@h:port/db"}, "MIRROR_SOURCE_URL is not a Postgres URL"),
        ({"MIRROR_TARGET_URL": "postgresql://u:hunter2@h:port/db"}, "MIRROR_TARGET_URL is not a Postgres URL"),
        ({"MIRROR_SOURCE_URL": "postgresql://u:hunter2@ep-a-b-pooler.eu.neon.tech/db"}, "ep-a-b.eu.neon.tech"),
        ({"MIRROR_POLL_INTERVAL": "hunter2"}, "MIRROR_POLL_INTERVAL"),
        ({"MIRROR_POLL_INTERVALL": "5"}, "Did you mean MIRROR_POLL_INTERVAL?"),
        ({"MIRROR_HTTP_PORT": "99999"}, "MIRROR_HTTP_PORT"),
    ],
)
async def test_a_wrong_setting_is_one_sentence_and_exit_code_2(
    source_url: str, target_url: str, settings: dict[str, str], says: str
) -> None:
    async with process(environ(source_url, target_url) | settings) as daemon:
        assert await daemon.ended() == 2, daemon.output
        assert says in daemon.output
        assert "Traceback" not in daemon.output
        assert "hunter2" not in daemon.output


async def test_a_source_without_the_mirror_is_exit_code_2(source_url: str, target_url: str) -> None:
    async with process(environ(source_url, target_url)) as daemon:
        assert await daemon.ended() == 2, daemon.output
        assert "mirror install source" in daemon.output
        assert "Traceback" not in daemon.output


async def test_a_target_without_the_mirror_is_exit_code_2(source_url: str, target_url: str) -> None:
    install(source_url, target_url)
    with psycopg.connect(target_url, autocommit=True) as target:
        target.execute("drop schema mirror cascade; drop function mirror_claim(jsonb)")
    async with process(environ(source_url, target_url)) as daemon:
        assert await daemon.ended() == 2, daemon.output
        assert "mirror install target" in daemon.output
        assert "Traceback" not in daemon.output


async def test_another_mapping_than_the_installed_one_is_exit_code_2(source_url: str, target_url: str) -> None:
    install(source_url, target_url, SOFT)
    async with process(environ(source_url, target_url)) as daemon:
        assert await daemon.ended() == 2, daemon.output
        assert "mirror install source" in daemon.output


async def test_a_port_that_is_taken_is_exit_code_2(source_url: str, target_url: str) -> None:
    install(source_url, target_url)
    async with (
        running(source_url, target_url) as first,
        process(environ(source_url, target_url, MIRROR_HTTP_PORT=str(first.port))) as daemon,
    ):
        assert await daemon.ended() == 2, daemon.output
        assert "MIRROR_HTTP_PORT" in daemon.output
