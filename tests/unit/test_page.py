"""The status page before any browser sees it: one document, and a policy that names exactly what stands in it."""

import base64
import hashlib
import re

from mirror.ops.page import HERE, SCRIPTS, load


def digests(tag: str) -> list[str]:
    contents = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", load().body.decode(), flags=re.DOTALL)
    return [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in contents]


def test_the_policy_names_the_one_script_and_the_one_style_and_nothing_else() -> None:
    policy = dict(part.split(" ", 1) for part in load().headers["content-security-policy"].split("; "))
    assert [policy["script-src"]] == digests("script")
    assert [policy["style-src"]] == digests("style")
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["img-src"] == "data:"
    assert "unsafe" not in str(policy)


def test_the_document_needs_nobody_else() -> None:
    text = load().body.decode()
    assert set(re.findall(r"https?://[^\"'\s]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<[^>]+\s(style|on\w+|src)=", (HERE / "page.html").read_text(encoding="utf-8"))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text)


def test_every_file_of_the_page_is_in_it() -> None:
    assert {path.name for path in HERE.glob("*.js")} == set(SCRIPTS)
    assert b"/* scripts */" not in load().body
    assert b"/* page.css */" not in load().body
