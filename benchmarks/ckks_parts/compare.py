"""The same updates through our sessions and through the peers, step by step, in turn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from peers import nvflare
from peers.tenseal_recipe import Recipe, quiet, upload_bytes

from ckks_parts.cpu import Step, interleaved, timed
from ckks_parts.world import BITS, World, finish, same_sum
from fedbcs_protocols import codec
from fedbcs_protocols.binding import COMBINER
from fedbcs_protocols.ckks.cipher import Decryptor
from fedbcs_protocols.ckks.messages import ciphertexts_of, decode_sum, sum_limit
from fedbcs_protocols.ckks.outcome import open_sum
from fedbcs_protocols.ckks.packing import unpack
from fedbcs_protocols.ckks.params import DEGREE, NOISE_VARIANCE
from fedbcs_protocols.ckks.products import BATCH
from fedbcs_protocols.ckks.samples import upload_secret
from fedbcs_protocols.ckks.words import unpack_words
from fedbcs_protocols.derive import PublicStream
from fedbcs_protocols.ring import Words
from fedbcs_protocols.wire import Kind, decode
from fedbcs_secure.federation.scratch import ScratchFile

SITES = 4
_EXPONENT = 4
_PEER_ERROR = 1e-3
_STEPS = ("encrypt", "add", "decrypt")
_FLARE_KEYS = (
    "nvflare_version",
    *(f"nvflare_{step}_ns" for step in _STEPS),
    "nvflare_average_ns",
    "nvflare_upload_bytes_per_parameter",
    "nvflare_download_bytes_per_parameter",
    *(f"nvflare_{step}_speedup" for step in _STEPS),
)

Figures: TypeAlias = dict[str, Any]
Update: TypeAlias = NDArray[np.float32]


def measure(shapes: Sequence[tuple[int, ...]], repeats: int, *, with_flare: bool) -> Figures:
    """All figures of the comparison, for tensors of ``shapes``. CPU nanoseconds are a value's.

    Raises RuntimeError when a sum is not exact, or a peer's average is far off.
    """
    count = sum(int(np.prod(shape)) for shape in shapes)
    updates = [_update(count, site) for site in range(SITES)]
    with quiet():
        ours, figures = _ours(updates)
        recipe, recipe_figures = _recipe(updates, shapes)
        flare, flare_figures = (
            _flare(updates, shapes) if with_flare else ({}, dict.fromkeys(_FLARE_KEYS))
        )
        # What is compared is called one right after the other.
        steps = {
            name: peer[name]
            for step in (*_STEPS, "decrypt_sum", "quantise")
            for peer in (ours, recipe, flare)
            for name in peer
            if name.removeprefix("recipe_").removeprefix("nvflare_") == step
        }
        seconds = interleaved(steps, repeats=repeats)
    nanoseconds = {f"{name}_ns": 1e9 * spent / count for name, spent in seconds.items()}
    figures |= recipe_figures | flare_figures | nanoseconds
    for prefix, peer in (("", "recipe"), ("nvflare_", "nvflare")):
        for step in _STEPS if peer == "recipe" or with_flare else ():
            figures[f"{prefix}{step}_speedup"] = seconds[f"{peer}_{step}"] / seconds[step]
    figures["encrypt_speedup_quantising_too"] = seconds["recipe_encrypt"] / (
        seconds["encrypt"] + seconds["quantise"]
    )
    figures["decrypt_speedup_undivided"] = seconds["recipe_decrypt_sum"] / seconds["decrypt"]
    return figures


def _update(count: int, site: int) -> Update:
    return np.random.default_rng(site).standard_normal(count, dtype=np.float32)


def _tensors(update: Update, shapes: Sequence[tuple[int, ...]]) -> list[Update]:
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    parts = np.split(update, ends)
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _codes(update: Update, site: int) -> Words:
    segments = [codec.Segment("all", 0, update.size)]
    words = PublicStream(0, "rounding", site, 0).words16(update.size)
    return codec.quantise(update, segments, [_EXPONENT], BITS, words).codes


def _ours(updates: Sequence[Update]) -> tuple[dict[str, Step], Figures]:
    count = updates[0].size
    world = World(SITES, count)
    vectors = [_codes(update, site) for site, update in enumerate(updates)]
    sessions = {name: world.session(name) for name in world.names}
    frames = [s.encrypt(v) for s, v in zip(sessions.values(), vectors, strict=True)]
    combiner = world.combiner()
    for frame in frames:
        combiner.receive(frame)
    _, closing = timed(combiner.close)
    closing_frame = finish(combiner, sessions)
    first, second = frames[:2]
    opener = world.names[0]
    # As of a site that has sent its ciphertexts.
    ring = world.keys[opener].ring
    transcript = sessions[opener].transcript

    def prepared_combiner() -> Any:
        fresh = world.combiner()
        fresh.receive(first)
        return fresh

    def prepared_keys() -> Any:
        keys = world.keys[opener]
        keys.keep(ring)
        return keys

    def opened(keys: Any) -> Words:
        seen = {0: transcript} if transcript else {}
        return open_sum(
            closing_frame, world.setting, seen=seen, keys=keys, scratch=ScratchFile()
        ).total

    if not same_sum(opened(prepared_keys()), vectors):
        raise RuntimeError("the sum is not exact")
    steps = {
        "encrypt": Step(lambda session: session.encrypt(vectors[0]), lambda: world.session(opener)),
        "add": Step(lambda fresh: fresh.receive(second), prepared_combiner),
        "decrypt": Step(opened, prepared_keys),
        "quantise": Step(lambda _: _codes(updates[0], 0)),
    }
    figures: Figures = {
        "parameters": count,
        "fields": world.setting.params.fields,
        "sum_exact": True,
        "noise_ratio": _noise_ratio(closing_frame, world),
        "upload_bytes_per_parameter": len(first) / count,
        "download_bytes_per_parameter": len(closing_frame) / count,
        "close_ns": 1e9 * closing / count,
    }
    return steps, figures


def _noise_ratio(frame: bytes, world: World) -> float:
    """Root mean square of what decryption rounds off, by what CK-5.4 expects of it."""
    setting, (secret, epoch) = world.setting, world.secret()
    body = decode(frame, {Kind.SUM: sum_limit(setting)}).body
    agreement, ciphertexts = decode_sum(body, sender=COMBINER, setting=setting)
    salts = agreement.announced.salts
    secrets = (
        upload_secret(secret, epoch, setting.binding, setting.names[place], salt)
        for place, salt in salts.items()
    )
    opener = Decryptor(setting.binding, secrets, ScratchFile())
    words = [unpack_words(each, COMBINER) for each in ciphertexts_of(ciphertexts)]
    squares = 0.0
    for start in range(0, len(words), BATCH):
        plain = opener.decrypt(words[start : start + BATCH])
        _, noise = unpack(plain, setting.params, len(salts))
        squares += float(np.square(noise, dtype=np.float64).sum())
    return float(np.sqrt(squares / (setting.chunks * DEGREE) / (len(salts) * NOISE_VARIANCE)))


def _recipe(
    updates: Sequence[Update], shapes: Sequence[tuple[int, ...]]
) -> tuple[dict[str, Step], Figures]:
    count = updates[0].size
    recipe = Recipe()
    tensors = _tensors(updates[0], shapes)
    upload = recipe.encrypt(tensors)
    first = recipe.load(upload)
    total = recipe.add(first, recipe.encrypt(_tensors(updates[1], shapes)))
    download, averaging = timed(partial(recipe.average, total, 2))
    undivided = recipe.sum(total)
    error = _error(recipe.decrypt(download), (updates[0] + updates[1]) / 2)
    vectors, contexts = upload_bytes(upload)
    steps = {
        "recipe_encrypt": Step(lambda _: recipe.encrypt(tensors)),
        "recipe_add": Step(lambda _: recipe.add(first, upload)),
        "recipe_decrypt": Step(lambda _: recipe.decrypt(download)),
        "recipe_decrypt_sum": Step(lambda _: recipe.decrypt(undivided)),
    }
    figures: Figures = {
        "recipe_tensors": len(tensors),
        "recipe_largest_error": error,
        "recipe_upload_bytes_per_parameter": vectors / count,
        "recipe_upload_contexts_bytes_per_parameter": contexts / count,
        "recipe_download_bytes_per_parameter": sum(map(len, download)) / count,
        "recipe_average_ns": 1e9 * averaging / count,
    }
    return steps, figures


def _flare(
    updates: Sequence[Update], shapes: Sequence[tuple[int, ...]]
) -> tuple[dict[str, Step], Figures]:
    count = updates[0].size
    flare = nvflare.NVFlare()
    tensors = _tensors(updates[0], shapes)
    message = flare.encrypt(tensors)
    aggregator = flare.aggregator()
    flare.add(aggregator, message, "first")
    flare.add(aggregator, flare.encrypt(_tensors(updates[1], shapes)), "second")
    download, averaging = timed(partial(flare.average, aggregator))
    error = _error(flare.decrypt(download), (updates[0] + updates[1]) / 2)

    def with_one() -> Any:
        fresh = flare.aggregator()
        flare.add(fresh, message, "first")
        return fresh

    steps = {
        "nvflare_encrypt": Step(lambda _: flare.encrypt(tensors)),
        "nvflare_add": Step(lambda fresh: flare.add(fresh, message, "second"), with_one),
        "nvflare_decrypt": Step(lambda _: flare.decrypt(download)),
    }
    figures: Figures = {
        "nvflare_version": nvflare.installed_version(),
        "nvflare_largest_error": error,
        "nvflare_upload_bytes_per_parameter": len(message) / count,
        "nvflare_download_bytes_per_parameter": len(download) / count,
        "nvflare_average_ns": 1e9 * averaging / count,
    }
    return steps, figures


def _error(tensors: Sequence[Sequence[float]], expected: Update) -> float:
    values = np.concatenate([np.asarray(tensor) for tensor in tensors])
    error = float(np.abs(values - expected).max())
    if error > _PEER_ERROR:
        raise RuntimeError(f"a peer's average is off by {error:g}")
    return error
