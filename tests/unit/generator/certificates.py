"""A certificate for signing pictures, and the authority above it, as tests need them."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class Identity:
    """PEM files."""

    certificates: Path
    key: Path
    authority: Path


def identity(folder: Path) -> Identity:
    """A P-256 key, certified by an authority of its own, as C2PA asks for."""
    above, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _certificate("authority", above, "authority", above, signs_pictures=False)
    certificate = _certificate("signer", own, "authority", above, signs_pictures=True)
    pem = serialization.Encoding.PEM
    made = Identity(folder / "signer.pem", folder / "signer.key", folder / "authority.pem")
    made.authority.write_bytes(authority.public_bytes(pem))
    made.certificates.write_bytes(certificate.public_bytes(pem) + authority.public_bytes(pem))
    made.key.write_bytes(
        own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    signs_pictures: bool,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    uses = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    usage = x509.KeyUsage(
        digital_signature=signs_pictures,
        key_cert_sign=not signs_pictures,
        crl_sign=not signs_pictures,
        **uses,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=not signs_pictures, path_length=None), True)
        .add_extension(usage, True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
        )
    )
    if signs_pictures:
        extended = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(extended, True)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Easel tests"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )
