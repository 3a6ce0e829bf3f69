"""Throwaway keys of the cluster's parts, and the kubeconfigs by which they find its API."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID = timedelta(days=2)
_BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


class Authority:
    """A certificate authority whose files, `NAME.crt` and `NAME.key`, lie in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = _new_key(folder / f"{name}.key")
        self._name = _name(name)
        self.certificate = folder / f"{name}.crt"
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        builder = _builder(self._name, self._name, self._key).add_extension(constraints, critical=True)
        _write(self.certificate, builder.sign(self._key, hashes.SHA256()))

    def issue(self, name: str, subject: str, *, group: str = "", names: Sequence[str] = ()) -> None:
        """Writes `NAME.crt` and `NAME.key` for a subject of a group, good for clients and for a server of `names`."""
        key = _new_key(self._folder / f"{name}.key")
        builder = _builder(_name(subject, group), self._name, key)
        builder = builder.add_extension(x509.ExtendedKeyUsage(_BOTH), critical=False)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_alternative(each) for each in names]), critical=False
            )
        _write(self._folder / f"{name}.crt", builder.sign(self._key, hashes.SHA256()))


def write_signing_key(folder: Path, name: str) -> None:
    """Writes `NAME.key` and `NAME.pub`, for the tokens of service accounts."""
    key = _new_key(folder / f"{name}.key")
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)


def write_kubeconfig(folder: Path, name: str, server: str, authority: Path) -> Path:
    """Writes `NAME.kubeconfig` for who has `NAME.crt`, and returns its path."""
    user = {"client-certificate": str(folder / f"{name}.crt"), "client-key": str(folder / f"{name}.key")}
    cluster = {"server": server, "certificate-authority": str(authority)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": name}}],
        "current-context": "cluster",
    }
    path = folder / f"{name}.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))  # which is YAML too
    return path


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + VALID)
    )


def _name(common_name: str, organization: str = "") -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _new_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    return key


def _write(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
