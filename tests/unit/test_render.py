"""SQL files with {{places}}."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror import render


@pytest.fixture
def schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(render, "_PACKAGED", tmp_path / "packaged")
    monkeypatch.setattr(render, "_CHECKOUT", tmp_path)
    render.template.cache_clear()
    yield tmp_path
    render.template.cache_clear()


def test_places_are_filled(schema: Path) -> None:
    (schema / "a.sql").write_text("select {{column}} from {{table}} where x = '{not a place}'")
    sql = render.render("a.sql", {"column": "{{table}}", "table": "t", "unused": "u"})
    assert sql == "select {{table}} from t where x = '{not a place}'"  # what was filled in is not looked at again


def test_a_place_without_a_value_is_an_error(schema: Path) -> None:
    (schema / "a.sql").write_text("select {{column}}")
    with pytest.raises(KeyError, match="column"):
        render.render("a.sql")


def test_what_is_packaged_comes_first(schema: Path) -> None:
    (schema / "a.sql").write_text("checkout")
    (schema / "packaged").mkdir()
    (schema / "packaged" / "a.sql").write_text("packaged")
    assert render.template("a.sql") == "packaged"


def test_every_file_of_the_schema_can_be_read() -> None:
    root = Path(__file__).parents[2] / "schema"
    names = [str(path.relative_to(root)) for path in root.rglob("*.sql")]
    assert names
    assert all(render.template(name) for name in names)


def test_a_digest_tells_texts_apart() -> None:
    assert render.digest("a") == render.digest("a") != render.digest("b")
