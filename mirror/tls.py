"""TLS to Postgres: only the server that a URL names gets its password.

libpq's own default (`sslmode=prefer`) sends the password in the clear to whatever answers "no TLS here", and `require`
takes any certificate. So a host that is not this machine is verified in full, against the system's roots, unless its
URL names an authority (`sslrootcert`). All of it is said to libpq explicitly: libpq asks the environment (PGSSLMODE,
PGSSLROOTCERT) and a service file only for what was not said.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from psycopg import ProgrammingError, conninfo, pq

from mirror.errors import ConfigError

SYSTEM = "system"
PERMISSION = "MIRROR_ALLOW_UNVERIFIED_TLS"
# Encryption by Kerberos comes before TLS where there are credentials for it, whatever sslmode says.
_DEFAULT = {"sslmode": "verify-full", "gssencmode": "disable", "ssl_min_protocol_version": "TLSv1.2"}
_WEAK = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca"),
    "gssencmode": ("prefer", "require"),
    "ssl_min_protocol_version": ("TLSv1", "TLSv1.1"),
}
_ELSEWHERE = {"host": "PGHOST", "hostaddr": "PGHOSTADDR", "service": "PGSERVICE"}
# Debian and Alpine, Fedora and RHEL, macOS and the BSDs, SUSE: for a Python that was built for another system.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
)  # fmt: skip


def refuse_unverified(url: str, name: str) -> None:
    """A URL that asks for less than the default; what is no URL at all is refused elsewhere."""
    for option, value in weaknesses(url).items():
        raise ConfigError(
            f"{name} says {option}={value}, which may give the password to another server",
            hint=f"Take {option} out of it: then the server's certificate is verified. Where that cannot be, "
            f"{PERMISSION}=yes allows it.",
        )


def weaknesses(url: str) -> dict[str, str]:
    """What it asks for that is less than the default."""
    try:
        parts: Mapping[str, Any] = conninfo.conninfo_to_dict(url)
    except (ProgrammingError, UnicodeDecodeError):
        return {}
    if is_local(parts):
        return {}
    return {option: str(parts[option]) for option, weak in _WEAK.items() if parts.get(option) in weak}


def verified(parts: Mapping[str, Any]) -> dict[str, Any]:
    """What libpq is told, beyond what the URL says."""
    said = dict(parts)
    if not is_local(parts):
        said |= {option: said.get(option) or default for option, default in _DEFAULT.items()}
        if said["sslmode"] == "verify-full":
            said["sslrootcert"] = said.get("sslrootcert") or SYSTEM
    if said.get("sslrootcert") == SYSTEM:
        said["sslrootcert"] = roots()
    return said


def is_local(parts: Mapping[str, Any]) -> bool:
    """Every name and every address is of this machine. A service file is not looked into: it may say anything."""
    said = {option: str(parts.get(option) or os.environ.get(name, "")) for option, name in _ELSEWHERE.items()}
    places = f"{said['host']},{said['hostaddr']}".split(",")
    return not said["service"] and all(map(_is_here, places))


def _is_here(place: str) -> bool:
    """None at all is libpq's socket."""
    if not place or place.startswith("/") or place.lower() == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(place).is_loopback
    return False


def roots() -> str:
    """The system's root certificates, as `sslrootcert` wants them. Its own word for them, `system`, means the place for
    which OpenSSL was built. For the OpenSSL in psycopg's wheels that is /usr/lib/psycopg-openssl, which exists nowhere:
    every certificate would be refused. (And before libpq 16 `system` is the name of a file.) Python's OpenSSL knows the
    right place."""
    file, directory = (os.environ.get(name, "") for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))
    if file:
        return file
    if directory and pq.version() >= 160_000:
        return SYSTEM  # libpq takes no directory; OpenSSL reads this variable itself
    for bundle in (ssl.get_default_verify_paths().cafile, *_BUNDLES):
        if bundle and Path(bundle).is_file():
            return bundle
    raise ConfigError(
        "this machine has no root certificates to verify a database with",
        hint="Install the package ca-certificates, or set SSL_CERT_FILE to a file that holds them.",
    )
