"""No secret leaves a site: not in a frame, not in a text, not in a pickle (GK-7.1)."""

from __future__ import annotations

import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hostile_group import Stage, make_group

from fedbcs_protocols.errors import LocalError, ProtocolError
from fedbcs_protocols.exchange import public_bytes
from fedbcs_protocols.group import Admission


def pieces(secret: bytes) -> list[bytes]:
    """What to look for: any eight bytes in a row, and the ways in which it may be written."""
    rows = [secret[at : at + 8] for at in range(len(secret) - 7)]
    return [*rows, secret[::-1], secret.hex().encode()[:16], repr(secret).encode()[2:-1]]


def test_no_frame_and_no_text_holds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[X25519PrivateKey] = []
    generate = X25519PrivateKey.generate

    def kept() -> X25519PrivateKey:
        made.append(generate())
        return made[-1]

    monkeypatch.setattr(X25519PrivateKey, "generate", staticmethod(kept))
    cast = make_group(5, threshold=3, rekey_every=2)
    frames: list[bytes] = []
    texts: list[str] = []
    for round in range(7, 12):
        now = cast.at(round)
        names = list(cast.names)[: 4 if round in (9, 10) else 5]
        stage = Stage(now, names).ready().ask().make()
        texts += [repr(site) for site in stage.sites.values()]
        texts += [repr(vars(site)) for site in stage.sites.values()]
        stage.take()
        frames += stage.frames
        texts += [repr(vars(stage.combiner)), repr(cast.group), repr(stage.combiner)]
    now = cast.at(12)
    admission = Admission(
        cast.group, identity=cast.boss, site="site4", away=now.control, control=now.control
    )
    away = now.site("site4")
    frames += [admission.join_frame(), away.join(admission.join_frame())]
    frames.append(admission.help_frame(frames[-1]))
    frames.append(now.site("site1").help(frames[-1], now.control))
    frames.append(admission.admitted_frame("site1", frames[-1]))
    frames.append(away.admit(frames[-1]))
    rings = [cast.ring(name) for name in cast.names]
    texts += [repr(ring) for ring in rings] + [repr(away)]
    secrets = {s.secret for ring in rings for s in ring.secrets}
    assert len(secrets) == 3
    private = {key.private_bytes_raw() for key in made}
    assert len(private) == 25
    sent = b"\n".join(frames)
    shown = "\n".join(texts).encode()
    # That the search finds what is there.
    assert public_bytes(made[0])[:8] in sent
    assert rings[0].secrets[0].key_id in sent
    for secret in secrets | private:
        for piece in pieces(secret):
            assert piece not in sent
            assert piece not in shown


def test_no_error_holds_one() -> None:
    cast = make_group(4)
    Stage(cast).run()
    secret = cast.site("site1").usable(7)
    stage = Stage(cast.at(20)).ready().ask().make()
    texts = []
    damaged = bytearray(stage.dealt_body.deal)
    for at in (-100, -200):
        damaged[at] ^= 1
    for call in (
        lambda: stage.sites["site1"].take(stage.dealt_with(deal=bytes(damaged)), cast.control),
        lambda: cast.site("site1").usable(20),
        lambda: cast.ring("site1").taking(secret.__class__(1, 0, frozenset({0}), bytes(32))),
        lambda: type(cast.ring("site1")).decode(cast.ring("site1").encode()[:-1]),
    ):
        with pytest.raises(ProtocolError) as caught:
            call()
        texts.append(f"{caught.value} {caught.value!r} {caught.value.args}".encode())
    for piece in pieces(secret.secret):
        assert all(piece not in text for text in texts)


def test_nothing_is_pickled() -> None:
    cast = make_group(4)
    stage = Stage(cast).ready().ask().make().take()
    for value in (cast.ring("site1"), cast.keepers["site1"], cast.ring("site1").current):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(value)
    # Its identity is the first thing that is refused.
    with pytest.raises((TypeError, LocalError), match="not pickled"):
        pickle.dumps(stage.sites["site1"])


def test_the_exchange_key_is_dropped() -> None:
    """GK-3.3: with the end of the stage."""
    stage = Stage(make_group(4)).ready().ask()
    assert all(site._exchange is not None for site in stage.sites.values())
    stage.make()
    assert stage.sites["site0"]._exchange is None
    stage.take()
    assert all(site._exchange is None for site in stage.sites.values())
