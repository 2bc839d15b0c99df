"""What the stand-in for PostgREST (tests/bed/postgrest.py) makes of a token, after src/PostgREST/Auth/Jwt.hs."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from typing import Any

from tests.bed.postgrest_answers import RefusedError

JWT_SECRET = "reallyreallyreallyreallyverysafe"
LEEWAY_S = 30


def token(role: str | None, **claims: Any) -> str:
    """What a legacy key is, and what the gateway makes of a secret key."""
    said = ({} if role is None else {"role": role}) | claims
    parts = [_base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, said)]
    return ".".join([*parts, _signature(*parts)])


def claims_of(authorization: str | None) -> dict[str, Any]:
    """`role` is in it always: anon, if the token says none."""
    if authorization is None:
        return {"role": "anon"}
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "bearer":
        return {"role": "anon"}
    if not given.strip():
        raise _decoding("Empty JWT is sent in Authorization header")
    parts = given.strip().split(".")
    if len(parts) != 3:
        raise _decoding(f"Expected 3 parts in JWT; got {len(parts)}")
    head = _decoded(parts[0])
    if head.get("alg") != "HS256":
        raise _decoding("Wrong or unsupported encoding algorithm")
    if not hmac.compare_digest(parts[2].encode(), _signature(parts[0], parts[1]).encode()):
        raise _decoding("No suitable key or wrong key type")
    claims = _decoded(parts[1])
    _check(claims, time.time())
    return claims | {"role": str(claims.get("role", "anon"))}


def _check(claims: dict[str, Any], now: float) -> None:
    for name in ("exp", "nbf", "iat"):
        if isinstance(claims.get(name, 0), bool) or not isinstance(claims.get(name, 0), (int, float)):
            raise _claim(f"The JWT '{name}' claim must be a number")
    if now - LEEWAY_S > claims.get("exp", now):
        raise _claim("JWT expired")
    if now + LEEWAY_S < claims.get("nbf", now):
        raise _claim("JWT not yet valid")
    if now + LEEWAY_S < claims.get("iat", now):
        raise _claim("JWT issued at future")


def _decoded(part: str) -> dict[str, Any]:
    try:
        said = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, binascii.Error):
        said = None
    if not isinstance(said, dict):
        raise _decoding("JWT cryptographic operation failed")
    return said


def _decoding(message: str) -> RefusedError:
    return RefusedError(401, "PGRST301", message)


def _claim(message: str) -> RefusedError:
    return RefusedError(401, "PGRST303", message)


def _signature(head: str, claims: str) -> str:
    return _base64(hmac.digest(JWT_SECRET.encode(), f"{head}.{claims}".encode(), hashlib.sha256))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
