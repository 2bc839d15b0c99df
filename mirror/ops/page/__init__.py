"""The status page as one self-contained document.

It is written as a few small files and put together once, when the server starts. Its Content Security Policy names the
digests of exactly this style and this script: nothing else that might find its way into the page can run, load or be
sent anywhere, and `trusted-types 'none'` makes the browser refuse markup made from text.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = (  # each may use those before it
    "words.js", "elements.js", "chart.js", "reader.js", "lists.js", "verdict.js", "sections.js", "resync.js", "page.js",
)  # fmt: skip


@dataclass(frozen=True)
class Page:
    body: bytes
    headers: Mapping[str, str]


def load() -> Page:
    style = _read("page.css")
    script = "\n".join(_read(name) for name in SCRIPTS)
    body = _read("page.html").replace("/* page.css */", style).replace("/* scripts */", script)
    headers = {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": _policy(script, style),
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
    return Page(body.encode(), headers)


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _policy(script: str, style: str) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_digest(script)}",
            f"style-src {_digest(style)}",
            "connect-src 'self'",
            "img-src data:",  # the icon of the tab, drawn by the page
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _digest(text: str) -> str:
    """Of what stands between the tags, to the last blank."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
