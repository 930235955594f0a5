"""Speed, size and memory of the encrypted sum (CKKS), beside NVFLARE's recipe on TenSEAL.

The recipe needs nothing that the toolkit does not (peers/tenseal_recipe.py). NVFLARE's own classes
are measured as well with ``--nvflare``, where they can be imported (peers/nvflare.py):

    .venv-bench/bin/python -m pip install --editable '.[bench-nvflare]'
    .venv-bench/bin/python benchmarks/ckks.py --nvflare
"""

from __future__ import annotations

import argparse
import sys

from ckks_parts import compare, memory, parts
from common.timing import parser, report
from peers import nvflare

_HELP = """\
The tensors of the U-Net of width 32 with the faithful fusion (8.3 million parameters), 16 bits a
value, four sites. CPU time of all threads, medians; ours computes on one. Peers run in turn.

encrypt_speedup, add_speedup, decrypt_speedup  NVFLARE's recipe / ours
upload_bytes_per_parameter, download_bytes_per_parameter  whole signed frames

..._ns a value, ours:

encrypt_ns    tags, packing, encryption, signature (CkksSession.encrypt)
add_ns        the combiner takes one more upload: signature, all checks, addition
decrypt_ns    signatures, digest, decryption, all checks, tags (open_sum)
close_ns      once a round: the sum to bytes, its digest (one call)
quantise_ns   float32 update -> codes, which encryption needs and the recipe does not

The recipe (recipe_...): one vector a tensor, N = 8192, [60, 40, 40] bits, scale 2^40; a context
with each vector of an upload, loaded again for each. What the sites get is the average; decrypting
the sum as it was before division is recipe_decrypt_sum_ns. ..._largest_error: of that average.
The same for its own classes, messages as bytes: nvflare_..., null without --nvflare;
nvflare_encrypt_speedup, nvflare_add_speedup, nvflare_decrypt_speedup: those / ours.

encrypt_speedup_quantising_too  (recipe) / (ours, quantising included)
decrypt_speedup_undivided       sum of the recipe, not divided / ours
sum_exact                       every sum was compared with that of the integers
noise_ratio                     what decryption rounds off, by the formula of CK-5.4

part_..._ns a value, the parts of encrypt_ns, each measured by itself:

part_common_ns     the common polynomials, from their public stream
part_products_ns   those times the secret, to SEAL and back
part_noise_ns      the noise
part_packing_ns    values into coefficients, residues into 60-bit words
part_tags_ns       the chunks, with fields and tags
part_signature_ns  the frame, signed
part_rest_ns       encrypt_ns less all these

peak_site_mb       most resident memory of a site's process beyond that after its imports, while
                   it encrypts and while it opens a sum (each a process; the vector is in it)
peak_combiner_mb   the same of the combiner's, four sites; ..._n12: twelve
tag_ms, tag_check_ms   tags of the vector in a sum that is not encrypted (VS): form, check
key_stage_ms_nN        a key stage, all N sites and combiner; ..._site, _dealer: one site's part
packing_...            60-bit words for an upload: cost a value, bytes saved, and the speed of a
                       line from which on they take more time than they save
"""


def _shapes(width: int) -> list[tuple[int, ...]]:
    from fedbcs_secure.learning.unet import NetworkConfig, UNet
    from fedbcs_secure.learning.weights import tensor_specs

    network = UNet(NetworkConfig(channels=3, classes=2, width=width, fused_width=8 * width))
    return [spec.shape for spec in tensor_specs(network)]


def _with_flare(wanted: bool) -> bool:
    if wanted:
        try:
            nvflare.installed_version()
        except nvflare.PeerMissing as missing:
            print(missing, file=sys.stderr)
            raise SystemExit(1) from None
    return wanted


def main() -> None:
    options = parser(_HELP, repeats=5)
    options.add_argument("--width", type=int, default=32, help="of the network (default 32)")
    options.add_argument("--nvflare", action="store_true", help="measure NVFLARE's classes too")
    options.add_argument(
        "--key-stages", default="4,64", metavar="N,N", help="numbers of sites (default 4,64)"
    )
    options.add_argument(
        "--quick", action="store_true", help="a network of width 4, one repetition, fewer sites"
    )
    options.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.measure:
        print(memory.own_peak(arguments.measure))
        return
    if arguments.quick:
        arguments.width, arguments.repeats, arguments.key_stages = 4, 1, "4"
    with_flare = _with_flare(arguments.nvflare)
    shapes = _shapes(arguments.width)
    figures = compare.measure(shapes, arguments.repeats, with_flare=with_flare)
    count = figures["parameters"]
    figures |= parts.client(count, arguments.repeats, figures["encrypt_ns"])
    figures |= memory.measure(__file__, count)
    figures |= parts.tags(count, arguments.repeats)
    numbers = [int(number) for number in arguments.key_stages.split(",")]
    figures |= parts.key_stages(numbers, arguments.repeats)
    figures |= parts.packing(arguments.repeats, figures["encrypt_ns"])
    report(figures, as_json=arguments.json)


if __name__ == "__main__":
    main()
