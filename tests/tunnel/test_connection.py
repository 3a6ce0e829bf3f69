"""What lies below a tunnel: TLS, Unix sockets, the ways to write a target."""

import asyncio
import datetime
from pathlib import Path

import grpc
import pytest
from modelmuxer.tunnel import TunnelChannel
from modelmuxer.tunnel.resolver import Resolver

from tests.tunnel.conftest import Client, Interop, Server, eventually


@pytest.mark.parametrize(
    ("target", "addresses"),
    [
        ("127.0.0.1:1", ["127.0.0.1:1"]),
        ("ipv4:127.0.0.1:1,127.0.0.2:1", ["127.0.0.1:1", "127.0.0.2:1"]),
        ("dns:///127.0.0.1:1, 127.0.0.1:1", ["127.0.0.1:1"]),
        ("[::1]:5", ["[::1]:5"]),
        ("unix:/tmp/x", ["unix:/tmp/x"]),
    ],
)
async def test_targets(target: str, addresses: list[str]) -> None:
    assert list(await Resolver(target).resolve()) == addresses


@pytest.mark.parametrize("target", ["", ","])
def test_a_target_without_an_address_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        TunnelChannel(target)


async def test_unix_socket(tmp_path: Path) -> None:
    server = Server()
    target = f"unix:{tmp_path}/socket"
    server.grpc.add_insecure_port(target)
    async with server, TunnelChannel(target) as channel:
        assert await Client(channel).empty({}) == {}


async def test_tls_checks_the_name_and_tells_the_handler() -> None:
    key, certificate = self_signed("localhost")
    server = Server(Interop())
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    port = server.grpc.add_secure_port("127.0.0.1:0", credentials)
    async with server:
        trusting = grpc.ssl_channel_credentials(certificate)
        async with TunnelChannel(f"localhost:{port}", credentials=trusting) as channel:
            assert await Client(channel).unary({"size": 3}) == {"body": "000", "got": 0}
            context = server.service.contexts[0]
            assert context.auth_context()["transport_security_type"] == [b"ssl"]
        async with TunnelChannel(f"127.0.0.1:{port}", credentials=trusting) as channel:
            assert await Client(channel).empty({}).code() is grpc.StatusCode.UNAVAILABLE


async def test_traffic_is_counted_at_both_ends() -> None:
    async with Server() as server, TunnelChannel(server.address) as channel:
        client = Client(channel)
        await asyncio.gather(*(client.empty({}) for _ in range(20)))
        given_up = client.hang({"name": "a"})
        await eventually(lambda: server.service.started)
        given_up.cancel()
        await eventually(lambda: server.service.cancelled)
        assert channel.traffic.calls == server.tunnel.traffic.calls == 21
        assert (channel.traffic.frames, server.tunnel.traffic.frames) == (22, 20)  # one of them cancels
        assert channel.traffic.batches < channel.traffic.frames


def self_signed(name: str) -> tuple[bytes, bytes]:
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, certificate.public_bytes(pem)
