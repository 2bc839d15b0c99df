"""Certificates, and a man in the middle: it stands where a database is expected, and writes down what it is told."""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

NAME = "db.test"  # no name of this machine; `hostaddr` says where it is
SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
ASK_FOR_PASSWORD = b"R" + struct.pack("!II", 8, 3)  # in the clear
NO_SUCH_USER = b"password authentication failed for user"


@dataclass(frozen=True)
class Certificate:
    crt: Path
    key: Path


def certificate(directory: Path, name: str = NAME, signed_by: Certificate | None = None) -> Certificate:
    """For this host name; signed by itself, as an authority is, unless told otherwise."""
    made = Certificate(directory / f"{name}.crt", directory / f"{name}.key")
    issuer = ["-CA", str(signed_by.crt), "-CAkey", str(signed_by.key)] if signed_by else []
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", *issuer,
         "-keyout", str(made.key), "-out", str(made.crt)],
        check=True, capture_output=True,
    )  # fmt: skip
    made.key.chmod(0o600)
    return made


@dataclass
class Impostor:
    """With a certificate it offers TLS, without one it says that it has none; `lies` first: an error of its own."""

    presents: Certificate | None
    lies: bool = False
    port: int = 0
    asked: int = 0  # conversations so far
    heard: bytearray = field(default_factory=bytearray)  # all that came in, deciphered where it could be

    def url(self, *, more: str = "") -> str:
        return f"postgresql://someone:hunter2@{NAME}:{self.port}/app?hostaddr=127.0.0.1{more}"

    def serve(self, listener: socket.socket) -> None:
        with suppress(OSError):  # closed: the test is over
            while True:
                client, _ = listener.accept()
                self.asked += 1
                client.settimeout(5)
                with suppress(OSError, EOFError), ExitStack() as stack:  # a client that has seen through it leaves
                    self._talk(stack, stack.enter_context(client))

    def _talk(self, stack: ExitStack, client: socket.socket) -> None:
        while (code := self._code(client)) in (SSL_REQUEST, GSS_REQUEST):
            if self.lies:
                client.sendall(b"E" + NO_SUCH_USER + b"\0")
            elif code == SSL_REQUEST and self.presents:
                client.sendall(b"S")
                client = stack.enter_context(self._context().wrap_socket(client, server_side=True))
            else:
                client.sendall(b"N")
        client.sendall(ASK_FOR_PASSWORD)
        self._read(client, 5)
        self._read(client, 4096, exactly=False)

    def _code(self, client: socket.socket) -> int:
        """Of a request for encryption, or of the first message, which is read to its end."""
        length, code = struct.unpack("!II", self._read(client, 8))
        self._read(client, length - 8)
        return int(code)

    def _read(self, client: socket.socket, count: int, *, exactly: bool = True) -> bytes:
        data = b""
        while len(data) < count:
            piece = client.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
            self.heard += piece
            if not exactly:
                break
        return data

    def _context(self) -> ssl.SSLContext:
        assert self.presents is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.presents.crt, self.presents.key)
        return context


class NosyProxy(Impostor):
    """An HTTP proxy that writes down what it is given to pass on. What is only to be tunnelled it tries to read, too:
    with its own certificate."""

    def _talk(self, stack: ExitStack, client: socket.socket) -> None:
        head = self._read(client, 65_536, exactly=False)
        if head.startswith(b"CONNECT ") and self.presents:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            client = stack.enter_context(self._context().wrap_socket(client, server_side=True))
            self._read(client, 65_536, exactly=False)
        client.sendall(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")


@contextmanager
def impostor(
    presents: Certificate | None = None, *, lies: bool = False, kind: type[Impostor] = Impostor
) -> Iterator[Impostor]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        there = kind(presents, lies, listener.getsockname()[1])
        thread = threading.Thread(target=there.serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield there
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
