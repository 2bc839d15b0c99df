"""Settings and mapping: what is right is read; what is wrong is said in one sentence that quotes no value."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.config import Settings, load_settings, setting_names
from mirror.errors import ConfigError
from mirror.https import Https
from mirror.mapping import Mapping, load_mapping
from mirror.tables import MEMBERSHIPS, TRIPS, USERS


def said(environ: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as refused:
        load_settings(environ)
    assert refused.value.exit_code == 2
    assert refused.value.__cause__ is None  # pydantic's own error knows the value
    return str(refused.value)


def test_nothing_is_needed_to_begin_with() -> None:
    assert load_settings({}) == Settings()
    assert Settings().http_port == 9464
    assert Settings().http_host == "127.0.0.1"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("10", 10), ("10s", 10), ("500ms", 0.5), ("2m", 120), ("2min", 120), ("1h", 3600), ("1.5 s", 1.5), (" 7s\n", 7)],
)
def test_durations_have_units(written: str, seconds: float) -> None:
    assert load_settings({"MIRROR_POLL_INTERVAL": written}).poll_interval_s == seconds


@pytest.mark.parametrize("written", ["soon", "10x", "-1s", "0", "s", "1h30m", "nan", "inf", "1e3", "25h", "", "٣"])
def test_what_is_no_duration_is_said(written: str) -> None:
    if not written:
        assert load_settings({"MIRROR_POLL_INTERVAL": written}) == Settings()
        return
    sentence = said({"MIRROR_POLL_INTERVAL": written})
    assert sentence == "MIRROR_POLL_INTERVAL must be a duration such as 500ms, 5s or 1m, more than 0 and at most 1h"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("MIRROR_HTTP_PORT", "http", "MIRROR_HTTP_PORT must be a port number, from 0 (any) to 65535"),
        ("MIRROR_HTTP_PORT", "70000", "MIRROR_HTTP_PORT must be a port number, from 0 (any) to 65535"),
        ("MIRROR_BATCH_ROWS", "0", "MIRROR_BATCH_ROWS must be a whole number from 1 to 50000"),
        ("MIRROR_BATCH_ROWS", "many", "MIRROR_BATCH_ROWS must be a whole number from 1 to 50000"),
        ("MIRROR_LOG_FORMAT", "xml", "MIRROR_LOG_FORMAT must be auto, human or json"),
        (
            "MIRROR_RECONCILE_CRON",
            "often",
            "MIRROR_RECONCILE_CRON must be five fields of cron such as */15 * * * *, an interval such as 30m, or off",
        ),
        (
            "MIRROR_RECONCILE_CRON",
            "61 * * * *",
            "MIRROR_RECONCILE_CRON must be five fields of cron such as */15 * * * *, an interval such as 30m, or off",
        ),
    ],
)
def test_a_wrong_value_is_one_sentence(name: str, value: str, sentence: str) -> None:
    assert said({name: value}) == sentence


def test_host_names_are_told_apart_from_everything_else() -> None:
    names = load_settings({"MIRROR_HTTP_HOSTS": " Mirror,mirror.example.org , a_b "}).http_hosts
    assert names == {"mirror", "mirror.example.org", "a_b"}
    for wrong in ("mirror:9464", "http://mirror", "*", "*.example.org", "mirror,,x", "a b", "mirror.", "\u00e9"):
        assert said({"MIRROR_HTTP_HOSTS": wrong}).startswith("MIRROR_HTTP_HOSTS must be host names without a port")


def test_every_setting_can_end_that_sentence() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name


def test_a_misspelt_setting_is_an_error_with_the_right_name() -> None:
    sentence = said({"MIRROR_SORUCE_URL": "postgresql://u:hunter2@h/d"})
    assert sentence == "MIRROR_SORUCE_URL is not a setting of the mirror. Did you mean MIRROR_SOURCE_URL?"


def test_a_name_near_none_is_answered_with_all_of_them() -> None:
    assert all(name in said({"MIRROR_XYZZY": "1"}) for name in setting_names())


def test_other_peoples_names_are_no_settings() -> None:
    environ = {
        "SUPABASE_ANON_KEY": "x",
        "MIRROR_TEST_BACKEND": "docker",
        "MIRROR_SERVICE_HOST": "10.0.0.1",
        "MIRROR_SERVICE_PORT": "9464",
        "MIRROR_SERVICE_PORT_HTTP": "9464",
        "MIRROR_PORT": "tcp://10.0.0.1:9464",
        "MIRROR_PORT_9464_TCP_ADDR": "10.0.0.1",
        "MIRROR_METRICS_PORT_9464_TCP": "tcp://10.0.0.1:9464",
        "HOME": "/",
    }
    assert load_settings(environ) == Settings()


def test_the_old_name_of_the_key_is_read_too() -> None:
    key = load_settings({"SUPABASE_SERVICE_ROLE_KEY": "old"}).supabase_key
    assert key is not None
    assert key.get_secret_value() == "old"


@pytest.mark.parametrize(
    ("ask", "environ", "words"),
    [
        (Settings.source, {}, "MIRROR_SOURCE_URL is not set. Set it to the direct"),
        (Settings.target, {}, "MIRROR_TARGET_URL is not set. Set it to the Postgres URL of Supabase"),
        (Settings.target_way, {"SUPABASE_URL": "https://x.supabase.co"}, "SUPABASE_URL is set, SUPABASE_SECRET_KEY"),
        (
            Settings.target,
            {"SUPABASE_URL": "https://x.supabase.co", "SUPABASE_SECRET_KEY": "k"},
            "install target --pri",
        ),
    ],
)
def test_a_missing_url_comes_with_its_cure(ask: Callable[[Settings], str], environ: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        ask(load_settings(environ))
    assert words in str(refused.value)


PROJECT = "https://abcdefgh.supabase.co"


@pytest.mark.parametrize(
    ("written", "url"),
    [
        (PROJECT, PROJECT),
        (f"{PROJECT}/", PROJECT),
        (f" {PROJECT}:8443 ", f"{PROJECT}:8443"),
        ("http://localhost:54321", "http://localhost:54321"),
        ("http://127.0.0.1", "http://127.0.0.1"),
        ("http://[::1]:1/", "http://[::1]:1"),
    ],
)
def test_the_url_of_a_project(written: str, url: str) -> None:
    way = load_settings({"SUPABASE_URL": written, "SUPABASE_SECRET_KEY": "sb_secret_x"}).target_way()
    assert isinstance(way, Https)
    assert way.url == url
    assert "sb_secret_x" not in repr(way)


@pytest.mark.parametrize(
    "written",
    [
        "abcdefgh.supabase.co", "http://abcdefgh.supabase.co", "http://localhost.example.org", "https://", "https://[::1",
        "https://supabase.com/dashboard/project/abcdefgh", f"{PROJECT}/rest/v1", "https://user:hunter2@host",
        "https://host:99999", "postgresql://host/db", "https://host?apikey=hunter2", "https://ho st",
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_project_is_said_when_it_is_needed(written: str) -> None:
    settings = load_settings({"SUPABASE_URL": written, "SUPABASE_SECRET_KEY": "k"})
    with pytest.raises(ConfigError) as refused:
        settings.target_way()
    assert str(refused.value) == (
        "SUPABASE_URL must be the https URL of the project and nothing more, such as https://abcdefgh.supabase.co"
    )
    both = load_settings({"SUPABASE_URL": written, "MIRROR_TARGET_URL": "postgresql://host/db"})
    assert both.target_way() == both.target() == "postgresql://host/db", "others have that variable for something else"


@pytest.mark.parametrize("key", ["sb_publishable_abc", "two words", "clé", "a\nb"])
def test_what_is_no_secret_key_is_said_and_not_quoted(key: str) -> None:
    settings = load_settings({"SUPABASE_URL": PROJECT, "SUPABASE_SERVICE_ROLE_KEY": key})
    with pytest.raises(ConfigError, match=r"^SUPABASE_SECRET_KEY must be a secret key of the project") as refused:
        settings.target_way()
    assert key not in str(refused.value)


def test_of_two_names_for_the_key_the_new_one_counts() -> None:
    key = load_settings({"SUPABASE_SERVICE_ROLE_KEY": "old", "SUPABASE_SECRET_KEY": "new"}).supabase_key
    assert key is not None
    assert key.get_secret_value() == "new"


@given(before=st.text(max_size=8), after=st.text(max_size=8))
def test_settings_never_show_a_secret(before: str, after: str) -> None:
    secret = f"{before}hunter2{after}"
    secrets = dict.fromkeys(("MIRROR_SOURCE_URL", "MIRROR_TARGET_URL", "SUPABASE_SECRET_KEY"), secret)
    secrets["MIRROR_ADMIN_TOKEN"] = "hunter2" * 3
    assert "hunter2" not in repr(load_settings(secrets))
    for name in ("MIRROR_HTTP_PORT", "MIRROR_POLL_INTERVAL", "MIRROR_LOG_FORMAT", "MIRROR_RECONCILE_CRON"):
        assert "hunter2" not in said(secrets | {name: secret})
    assert "hunter2" not in said(secrets | {"MIRROR_ADMIN_TOKEN": "hunter2"})


# mirror.toml

A_LIST = 'a list of tables, such as ["public.messages"]'


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "mirror.toml"
        path.write_text(text)
        return path

    return write


def test_no_file_means_the_default_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_mapping(None) == Mapping()


def test_the_file_in_the_working_directory_is_found(
    written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(written('[users]\nfrom = "public.people"').parent)
    assert load_mapping(None).relation(USERS) == "public.people"


def test_a_mapping_is_read(written: Callable[[str], Path]) -> None:
    mapping = load_mapping(
        written(
            """
            users = { from = 'public."User"', id = "uid" }
            [trip_memberships]
            where = "left_at is null"
            [target]
            allow_cascade = ["public.messages"]
            """
        )
    )
    assert mapping.expression(USERS, "id") == "uid"
    assert mapping.expression(USERS, "subject") == "uid"  # unless it is mapped by itself
    assert mapping.expression(TRIPS, "name") == '"name"'
    assert mapping.where(MEMBERSHIPS) == "left_at is null"
    assert mapping.target.allow_cascade == ("public.messages",)
    assert mapping.source_part()["users"]["from"] == 'public."User"'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[user]", "[user] is not a section. Did you mean users?"),
        ("[zzz]", "[zzz] is not a section. Known: users, trips, trip_memberships, target, access."),
        ('[users]\nform = "x"', "[users] form is not known. Did you mean from?"),
        ('[users]\nfrom_ = "x"', "[users] from_ is not known. Did you mean from?"),
        ("[users]\nid = 3", "[users] id must be an SQL expression in quotes, and not empty"),
        ('[users]\nwhere = ""', "[users] where must be an SQL expression in quotes, and not empty"),
        ("[users]\nfrom = []", '[users] from must be the name of a table in quotes, such as "public.users"'),
        (
            '[target]\nallow_cascade = "x"',
            '[target] allow_cascade must be a list of tables, such as ["public.messages"]',
        ),
        (
            '[target]\nallow_cascade = [""]',
            '[target] allow_cascade must be a list of tables, such as ["public.messages"]',
        ),
        ("users = 1", "users must be a section. Write [users] on a line of its own."),
        ("[[users]]", "users must be a section. Write [users] on a line of its own."),
    ],
)
def test_a_wrong_mapping_is_one_sentence(written: Callable[[str], Path], text: str, sentence: str) -> None:
    path = written(text)
    with pytest.raises(ConfigError) as refused:
        load_mapping(path)
    assert str(refused.value) == f"{path}: {sentence}"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, written: Callable[[str], Path]) -> None:
    missing = tmp_path / "nowhere.toml"
    for path, words in (
        (missing, f"there is no file {missing}. MIRROR_CONFIG names the mapping file."),
        (tmp_path, f"cannot read {tmp_path}: Is a directory"),
        (written("users = "), "is not valid TOML: "),
    ):
        with pytest.raises(ConfigError) as refused:
            load_mapping(path)
        assert words in str(refused.value)
    (tmp_path / "mirror.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load_mapping(tmp_path / "mirror.toml")
