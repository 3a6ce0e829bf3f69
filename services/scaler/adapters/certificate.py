"""The certificate of an HTTPS port: a given one, or one that is made at start and trusted by nobody."""

from __future__ import annotations

import socket
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

VALID_DAYS = 3650  # as long as the process may run; who checks it gives one of his own


def server_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """TLS with the given certificate, or with a new one. Raises OSError and ssl.SSLError, which is one too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
        return context
    with tempfile.TemporaryDirectory() as folder:
        pem = Path(folder) / "self-made.pem"
        pem.touch(mode=0o600)
        pem.write_bytes(_self_made())
        context.load_cert_chain(pem)
    return context


def _self_made() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "modelmuxer-scaler")])
    names = x509.SubjectAlternativeName([x509.DNSName(each) for each in ("localhost", socket.gethostname())])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)
