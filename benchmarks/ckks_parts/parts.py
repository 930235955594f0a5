"""What an upload consists of, tags, the key stage and the packed words, each alone."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from ckks_parts.cpu import Step, interleaved
from ckks_parts.world import BITS, World
from fedbcs_protocols.binding import Binding
from fedbcs_protocols.ckks.messages import UPLOAD_SEQUENCE, Encrypted
from fedbcs_protocols.ckks.packing import pack
from fedbcs_protocols.ckks.params import DEGREE, PRIME, parameter_set
from fedbcs_protocols.ckks.products import BATCH, Products
from fedbcs_protocols.ckks.samples import (
    SALT_BYTES,
    CommonPolynomials,
    NoiseStream,
    upload_secret,
)
from fedbcs_protocols.ckks.tagging import batches_of, tagger_of
from fedbcs_protocols.ckks.words import POLYNOMIAL_BYTES, pack_words, unpack_words
from fedbcs_protocols.tags import CHUNK, Tagger
from fedbcs_protocols.wire import Frame, Kind, seal
from fedbcs_secure.federation.scratch import ScratchFile

_SITES = 4
_PLAIN_WORD_BYTES = 8
_MANY = 200


def client(count: int, repeats: int, encrypt_ns: float) -> dict[str, float]:
    """CPU nanoseconds a value of each part of an upload, by itself, and what is left of the whole.

    Everything that is needed once an upload, as keys, is counted where it is needed.
    """
    world = World(_SITES, count)
    setting, (secret, epoch), name = world.setting, world.secret(), world.names[0]
    params, binding, salt = setting.params, setting.binding, bytes(SALT_BYTES)
    batches = range(-(-setting.chunks // BATCH))
    random = np.random.default_rng(0)
    vector = random.integers(0, 2**BITS, count, dtype=np.uint32)
    values = random.integers(0, 2**BITS, (BATCH, params.capacity), dtype=np.uint32)
    words = random.integers(0, PRIME, (BATCH, DEGREE), dtype=np.uint64)
    body = bytes(Encrypted.length(setting))

    def common(_: object) -> None:
        stream = CommonPolynomials(binding)
        for _batch in batches:
            stream.next(BATCH)

    def products(_: object) -> None:
        upload = upload_secret(secret, epoch, binding, name, salt)
        factor = Products(upload, ScratchFile())
        for _batch in batches:
            factor.of(words)

    def noise(_: object) -> None:
        stream = NoiseStream(bytes(32))
        for _batch in batches:
            stream.next(BATCH)

    def packed(_: object) -> None:
        for _batch in batches:
            pack(values, params)
            b"".join(map(pack_words, words))

    def tagged(_: object) -> None:
        for _batch in batches_of(vector, setting, tagger_of(setting, secret, epoch), name):
            pass

    def signed(_: object) -> None:
        frame = Frame(Kind.ENCRYPTED, binding, name, UPLOAD_SEQUENCE, body)
        seal(frame, world.identities[name])

    acts = {
        "common": common,
        "products": products,
        "noise": noise,
        "packing": packed,
        "tags": tagged,
        "signature": signed,
    }
    seconds = interleaved({part: Step(act) for part, act in acts.items()}, repeats=repeats)
    figures = {f"part_{part}_ns": 1e9 * spent / count for part, spent in seconds.items()}
    return figures | {"part_rest_ns": encrypt_ns - sum(figures.values())}


def tags(count: int, repeats: int) -> dict[str, float]:
    """CPU milliseconds to form the tags of ``count`` values, and to check those of a sum."""
    tagger = Tagger(bytes(32), 1, Binding(bytes(32), 0, 0, 1, bytes(32)), BITS, CHUNK)
    names = [f"site{i}" for i in range(_SITES)]
    values = np.random.default_rng(0).integers(0, 2**BITS - 1, count, dtype=np.uint32)
    total = values * np.uint32(_SITES)
    limbs = sum(tagger.sealed(values, name) for name in names)
    seconds = interleaved(
        {
            "tag_ms": Step(lambda _: tagger.sealed(values, names[0])),
            "tag_check_ms": Step(lambda _: tagger.check(total, limbs, names)),
        },
        repeats=repeats,
    )
    return {name: 1e3 * spent for name, spent in seconds.items()}


def key_stages(numbers: Sequence[int], repeats: int) -> dict[str, float]:
    """CPU milliseconds of a whole key stage: of all parties, and of single ones."""
    figures: dict[str, float] = {}
    for sites in numbers:
        costs = [World(sites).costs for _ in range(repeats)]
        for key, field in (
            ("key_stage_ms", "total"),
            ("key_stage_combiner_ms", "combiner"),
            ("key_stage_dealer_ms", "deal"),
            ("key_stage_site_ms", "site"),
        ):
            median = statistics.median(getattr(cost, field) for cost in costs)
            figures[f"{key}_n{sites}"] = 1e3 * median
    return figures


def packing(repeats: int, encrypt_ns: float) -> dict[str, float]:
    """What 60-bit words cost and save, beside whole 64-bit ones, for one upload."""
    words = np.random.default_rng(0).integers(0, PRIME, DEGREE, dtype=np.uint64)
    packed = pack_words(words)
    plain = words.astype("<u8").tobytes()

    def many(act: object, given: object) -> Step:
        return Step(lambda _: [act(given) for _ in range(_MANY)])  # type: ignore[operator]

    seconds = interleaved(
        {
            "pack": many(pack_words, words),
            "unpack": many(lambda data: unpack_words(data, "site"), packed),
            "to_plain": many(lambda w: w.astype("<u8").tobytes(), words),
            "from_plain": many(_checked, plain),
        },
        repeats=repeats,
    )
    values = _MANY * parameter_set(_SITES, BITS).payload
    each = {name: 1e9 * spent / values for name, spent in seconds.items()}
    # The combiner reads each polynomial twice: it checks all of a site's before it adds any.
    extra = each["pack"] - each["to_plain"] + 2 * (each["unpack"] - each["from_plain"])
    saved = (_PLAIN_WORD_BYTES * DEGREE - POLYNOMIAL_BYTES) * _MANY / values
    return {
        "packing_pack_ns": each["pack"],
        "packing_unpack_ns": each["unpack"],
        "packing_saved_upload_bytes_per_parameter": saved,
        "packing_saved_download_bytes_per_parameter": saved,
        "packing_share_of_encrypt": each["pack"] / encrypt_ns,
        "packing_pays_below_mbit_s": 8e3 * saved / extra if extra > 0 else float("inf"),
    }


def _checked(data: bytes) -> np.ndarray:
    """Plain words with the check that packed ones get as well."""
    words = np.frombuffer(data, "<u8")
    if int(words.max()) >= PRIME:
        raise RuntimeError("no residue")
    return words
