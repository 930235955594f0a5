"""Whole sums over more and more sites: what grows at a site, and what at the combiner."""

from __future__ import annotations

from collections.abc import Sequence

from secagg_parts import session

from fedbcs_protocols.secagg import Terms
from fedbcs_protocols.secagg.setting import default_terms

_VALUES = 1000
_WATCHED = 8


def measure(numbers: Sequence[int]) -> dict[str, list[float]]:
    """For each number of sites: shares and masks a site, its CPU seconds and bytes by stage.

    The vector is short, so that the rest shows. Every sum is checked.
    """
    out: dict[str, list[float]] = {"growth_sites": [float(n) for n in numbers]}
    for sites in numbers:
        graph = Terms(sites, *default_terms(sites)).graph
        degree = sites - 1 if graph.complete else 2 * graph.size - graph.size**2 / (sites - 1)
        costs = session.run(sites, _VALUES, measured=_WATCHED)
        vector = costs.up["masked_input"]
        row = {
            "growth_shares": float(graph.size),
            "growth_masks": degree,
            "growth_site_cpu_s": sum(costs.site.values()),
            "growth_site_key_list_cpu_s": costs.site["share"],
            "growth_site_shares_and_masks_cpu_s": costs.site["masked_input"],
            "growth_site_certificate_cpu_s": costs.site["unmask"],
            "growth_up_bytes": sum(costs.up.values()) - vector,
            "growth_down_bytes": sum(costs.down.values()),
            "growth_key_list_bytes": costs.down["share"],
            "growth_certificate_bytes": costs.down["unmask"],
            "growth_combiner_cpu_s": sum(costs.combiner.values()),
        }
        for key, value in row.items():
            out.setdefault(key, []).append(value)
    return out
