"""Answers to programs, which people read with curl."""

from __future__ import annotations

import json
from typing import Any

from starlette import responses


class JSONResponse(responses.JSONResponse):
    """Plain ASCII: a name in it may hold what a terminal obeys (U+009B, U+202E), which JSON itself need not escape."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")
