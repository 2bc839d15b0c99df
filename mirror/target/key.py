"""What a key of Supabase says of its own end. A legacy key is a JWT that carries the moment of its expiry, and Supabase
retires that whole kind; a secret key (sb_secret_...) is opaque and ends when somebody revokes it."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime

from pydantic import SecretStr

LEGACY_RETIRED_AT = datetime(2027, 1, 1, tzinfo=UTC).timestamp()


def key_ends(key: SecretStr | None) -> dict[str, float]:
    """When it stops working, in seconds since 1970, by reason (expiry, retirement); nothing when it is no JWT."""
    said = None if key is None else claims(key.get_secret_value())
    if said is None:
        return {}
    expires = said.get("exp")
    ends = {"retirement": LEGACY_RETIRED_AT}
    return ends | ({"expiry": float(expires)} if isinstance(expires, int | float) else {})


def claims(key: str) -> dict[str, object] | None:
    """Read, not verified: the signature is Supabase's business."""
    parts = key.split(".")
    if len(parts) != 3:
        return None
    try:
        said = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    return said if isinstance(said, dict) else None
