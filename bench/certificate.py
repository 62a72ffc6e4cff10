"""A throw-away certificate for 127.0.0.1 that is its own authority, made with the command openssl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

REQUEST = """
[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = bench provider
[extensions]
subjectAltName = IP:127.0.0.1, DNS:localhost
basicConstraints = critical, CA:TRUE
keyUsage = critical, digitalSignature, keyCertSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""
"""All that strict verification asks of an authority, which Python does from 3.13 on."""


def make(folder: Path) -> tuple[Path, Path] | None:
    """Return the files of a certificate and its key in ``folder``, good for two days; None if there is no openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        return None
    certificate, key, request = folder / "certificate.pem", folder / "key.pem", folder / "request.cnf"
    request.write_text(REQUEST)
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-config", str(request), "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([openssl, "req", "-x509", *curve, "-days", "2", *files], check=True, capture_output=True)
    return certificate, key
