"""What the frames of an encrypted sum carry: one value a kind, one canonical body each.

``decode`` is told who sent the body and what size it must have; it raises
:class:`MalformedFrame` naming the sender for everything that ``encode`` does not write.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from fedbcs_protocols.binding import COMBINER, encode_fields
from fedbcs_protocols.ckks.samples import SALT_BYTES
from fedbcs_protocols.ckks.setting import CkksSetting
from fedbcs_protocols.ckks.words import POLYNOMIAL_BYTES
from fedbcs_protocols.derive import PROTOCOL_VERSION
from fedbcs_protocols.errors import BadSignature, BadSiteList, Inconsistent, MalformedFrame
from fedbcs_protocols.identity import SIGNATURE_BYTES
from fedbcs_protocols.ring import Buffer
from fedbcs_protocols.sitesets import decode_set, encode_set, set_bytes
from fedbcs_protocols.wire import Frame, Kind

UPLOAD_SEQUENCE, AGREE_SEQUENCE = 0, 1
AGGREGATE_SEQUENCE, SUM_SEQUENCE = 0, 1
DIGEST_BYTES = 32

_UPLOAD = struct.Struct(f">32s32s{SALT_BYTES}sI")
_COUNT = struct.Struct(">I")


@dataclass(frozen=True)
class Encrypted:
    """A site's vector: the key and the parameters that it is under, its salt, its ciphertexts."""

    key_id: bytes
    parameters: bytes
    salt: bytes
    body: Buffer

    @staticmethod
    def head(setting: CkksSetting, salt: bytes) -> bytes:
        """The start of the body; ciphertexts of :data:`POLYNOMIAL_BYTES` follow (CK-3.8)."""
        return _UPLOAD.pack(setting.key_id, setting.params.digest, salt, setting.chunks)

    @staticmethod
    def length(setting: CkksSetting) -> int:
        """The exact length of the body, in bytes."""
        return _UPLOAD.size + setting.chunks * POLYNOMIAL_BYTES

    @classmethod
    def decode(cls, body: Buffer, *, sender: str, setting: CkksSetting) -> Encrypted:
        """Raises :class:`Inconsistent` for another key or other parameters as well."""
        if len(body) != cls.length(setting):
            raise MalformedFrame(
                sender, f"ciphertexts of {len(body)} bytes, not {cls.length(setting)}"
            )
        view = memoryview(body)
        key_id, parameters, salt, chunks = _UPLOAD.unpack_from(view)
        # CK-3.9: a sum of ciphertexts from two keys is noise, and nobody would notice here.
        if key_id != setting.key_id:
            raise Inconsistent(sender, "its ciphertexts are under another key")
        if parameters != setting.params.digest or chunks != setting.chunks:
            raise Inconsistent(sender, "its ciphertexts have other parameters")
        return cls(key_id, parameters, salt, view[_UPLOAD.size :])

    def ciphertexts(self) -> Iterator[memoryview]:
        """Each chunk's ciphertext, in order."""
        return ciphertexts_of(self.body)


def ciphertexts_of(body: Buffer) -> Iterator[memoryview]:
    """The ciphertexts that ``body`` consists of, in order."""
    view = memoryview(body)
    for at in range(0, len(view), POLYNOMIAL_BYTES):
        yield view[at : at + POLYNOMIAL_BYTES]


@dataclass(frozen=True)
class Announced:
    """An aggregate: each member's salt, by place, and the digest of its ciphertexts."""

    salts: Mapping[int, bytes]
    digest: bytes

    @property
    def members(self) -> frozenset[int]:
        """The sites in the aggregate, by place."""
        return frozenset(self.salts)

    def encode(self, sites: int) -> bytes:
        salts = (self.salts[place] for place in sorted(self.salts))
        return b"".join((encode_set(self.salts, sites), self.digest, *salts))

    @staticmethod
    def limit(sites: int) -> int:
        """The longest encoding, in bytes."""
        return set_bytes(sites) + DIGEST_BYTES + sites * SALT_BYTES

    @classmethod
    def decode(cls, body: Buffer, *, sender: str, sites: int) -> Announced:
        announced, end = cls.decode_from(body, sender=sender, sites=sites)
        if end != len(body):
            raise MalformedFrame(sender, f"an aggregate announced in {len(body)} bytes, not {end}")
        return announced

    @classmethod
    def decode_from(cls, body: Buffer, *, sender: str, sites: int) -> tuple[Announced, int]:
        """What is announced at the start of ``body``, and where it ends."""
        view, width = memoryview(body), set_bytes(sites)
        head = width + DIGEST_BYTES
        if len(view) < head:
            raise MalformedFrame(sender, f"an aggregate announced in {len(view)} bytes")
        places = sorted(decode_set(view[:width], sites, sender=sender))
        end = head + len(places) * SALT_BYTES
        if len(view) < end:
            raise MalformedFrame(sender, "an aggregate with fewer salts than members")
        salts = {
            place: bytes(view[at : at + SALT_BYTES])
            for place, at in zip(places, range(head, end, SALT_BYTES), strict=True)
        }
        return cls(salts, bytes(view[width:head])), end


@dataclass(frozen=True)
class Agreement:
    """At least t sites' signatures on one aggregate (CK-4.4); ``signatures`` are by place."""

    key_id: bytes
    announced: Announced
    signatures: Mapping[int, bytes]

    def encode(self, sites: int) -> bytes:
        ordered = (self.signatures[place] for place in sorted(self.signatures))
        signers = encode_set(self.signatures, sites)
        return b"".join((self.key_id, self.announced.encode(sites), signers, *ordered))

    @staticmethod
    def limit(sites: int) -> int:
        """The longest encoding, in bytes."""
        head = DIGEST_BYTES + Announced.limit(sites) + set_bytes(sites)
        return head + sites * SIGNATURE_BYTES

    @classmethod
    def decode_from(cls, body: Buffer, *, sender: str, sites: int) -> tuple[Agreement, int]:
        """The agreement at the start of ``body``, and where it ends."""
        view, width = memoryview(body), set_bytes(sites)
        rest = view[DIGEST_BYTES:]
        announced, middle = Announced.decode_from(rest, sender=sender, sites=sites)
        middle += DIGEST_BYTES
        head = middle + width
        if len(view) < head:
            raise MalformedFrame(sender, f"an agreement of {len(view)} bytes")
        signers = sorted(decode_set(view[middle:head], sites, sender=sender))
        end = head + len(signers) * SIGNATURE_BYTES
        if len(view) < end:
            raise MalformedFrame(sender, "an agreement with fewer signatures than signers")
        signatures = {
            place: bytes(view[at : at + SIGNATURE_BYTES])
            for place, at in zip(signers, range(head, end, SIGNATURE_BYTES), strict=True)
        }
        return cls(bytes(view[:DIGEST_BYTES]), announced, signatures), end

    def check(self, setting: CkksSetting) -> bytes:
        """The transcript that at least t of the members signed, whatever key it names (CK-4.4).

        Raises :class:`BadSiteList` and :class:`Inconsistent`.
        """
        members = self.announced.members
        if not self.signatures.keys() <= members or len(self.signatures) < setting.terms.threshold:
            raise BadSiteList(
                COMBINER,
                f"an agreement of {len(self.signatures)} signers for {len(members)} members, the "
                f"threshold is {setting.terms.threshold}",
            )
        setting = replace(setting, key_id=self.key_id)
        digest = transcript(setting, self.announced)
        for place, signature in self.signatures.items():
            check_agreed(setting, place, signature, digest)
        return digest


def transcript(setting: CkksSetting, announced: Announced) -> bytes:
    """The digest over key, parameters, members and aggregate of one attempt (CK-4.3)."""
    return hashlib.sha256(
        encode_fields(
            "ckks transcript",
            PROTOCOL_VERSION,
            setting.binding.encode(),
            setting.key_id,
            setting.params.digest,
            setting.count,
            announced.encode(setting.sites),
        )
    ).digest()


def agree_frame(setting: CkksSetting, name: str, digest: bytes) -> Frame:
    """The frame that site ``name`` signs; everybody can form it, so only signatures travel."""
    return Frame(Kind.CONSISTENCY, setting.binding, name, AGREE_SEQUENCE, digest)


def check_agreed(setting: CkksSetting, place: int, signature: bytes, digest: bytes) -> None:
    """Return when the site in ``place`` signed ``digest``; else :class:`Inconsistent` names it."""
    name = setting.names[place]
    message = agree_frame(setting, name, digest).signed_message()
    try:
        setting.roster[name].verify(signature, message, signer=name)
    except BadSignature:
        raise Inconsistent(name, "its signature is not on what this site saw") from None


def aggregate_digest(ciphertexts: Buffer) -> bytes:
    """Names an aggregate: SHA-256 of a label and all its ciphertexts (CK-4.2)."""
    digest = hashlib.sha256(b"fedbcs-secure aggregate v1\x00")
    digest.update(ciphertexts)
    return digest.digest()


def sum_limit(setting: CkksSetting) -> int:
    """The longest body of a *sum* frame, in bytes."""
    return Agreement.limit(setting.sites) + _COUNT.size + setting.chunks * POLYNOMIAL_BYTES


def encode_sum(agreement: Agreement, ciphertexts: Buffer, setting: CkksSetting) -> bytes:
    """The body of a *sum* frame: agreement, count and ciphertexts (CK-4.5)."""
    head = agreement.encode(setting.sites) + _COUNT.pack(setting.chunks)
    return b"".join((head, ciphertexts))


def decode_sum(body: Buffer, *, sender: str, setting: CkksSetting) -> tuple[Agreement, memoryview]:
    """The inverse; the ciphertexts are a view of ``body``."""
    agreement, end = Agreement.decode_from(body, sender=sender, sites=setting.sites)
    view = memoryview(body)[end:]
    expected = _COUNT.size + setting.chunks * POLYNOMIAL_BYTES
    if len(view) != expected or _COUNT.unpack_from(view)[0] != setting.chunks:
        raise MalformedFrame(sender, f"an aggregate of {len(view)} bytes, not {expected}")
    return agreement, view[_COUNT.size :]
