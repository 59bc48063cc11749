"""The stand-in's own certificate authority, made with the openssl command.

Writes to the directory: ca.pem (for clients to trust), server.pem and server.key (for the stand-in).
"""

import subprocess
from pathlib import Path

NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "100"]


def make(folder: Path) -> None:
    """Makes the CA, and a server certificate for 127.0.0.1, localhost and upstream.test."""
    make_ca(folder)
    # nginx looks for an address among the names, too.
    issue(folder, "server", "IP:127.0.0.1", "DNS:127.0.0.1", "DNS:localhost", "DNS:upstream.test")


def make_ca(folder: Path) -> None:
    _openssl(
        folder, "req", "-x509", *NEW_KEY, "-keyout", "ca.key", "-out", "ca.pem",
        "-subj", "/CN=Stand-in test authority",
        "-addext", "keyUsage=critical,keyCertSign,cRLSign",
    )


def issue(folder: Path, file: str, *names: str, usage: str = "serverAuth") -> None:
    """Makes a certificate for these names, FILE.pem, and its key, FILE.key."""
    _openssl(
        folder, "req", "-x509", "-CA", "ca.pem", "-CAkey", "ca.key", *NEW_KEY,
        "-keyout", f"{file}.key", "-out", f"{file}.pem", "-subj", "/CN=localhost",
        "-addext", f"subjectAltName={','.join(names)}",
        "-addext", "basicConstraints=critical,CA:FALSE",
        "-addext", f"extendedKeyUsage={usage}",
    )


def _openssl(folder: Path, *arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
