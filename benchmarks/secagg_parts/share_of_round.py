"""The five stages beside one round of training at four sites."""

from __future__ import annotations

import os
import time

from secagg_parts import session

SITES = 4


def measure(data: str | None, width: int, size_px: int, patients: int) -> dict[str, float]:
    """Seconds of a round's training, of its stages, and the stages' part of both in CPU seconds.

    Training: one round of the default study over the first four sites of ``data`` (None: the real
    images of FEDBCS_REAL_DATA, else synthetic MRI with ``patients`` a site), one site after
    another. Stages: all frames of four sites and the combiner, from *advertise* to the opened sum,
    for a vector of the network's length, median of three. Verified: the key stage before and the
    tags as well, as is the default.
    """
    from fedbcs_secure.cli.options import study_and_settings
    from fedbcs_secure.cli.session import fitting_contract
    from fedbcs_secure.data import sources
    from fedbcs_secure.federation.simulation import with_roster
    from fedbcs_secure.learning.learner import Learner

    source = data or os.environ.get("FEDBCS_REAL_DATA") or "synthetic-mri"
    flags = {"data": source, "width": width, "size": size_px}
    study, settings = study_and_settings(None, flags)
    study = study.model_copy(update={"data": fitting_contract(source, study.data)})
    dataset = sources.load(source, study.data, patients=patients, slices=settings.slices)
    study = with_roster(study.resolved(), dataset)
    learner = Learner(study, "cpu")
    weights = learner.initial_weights()
    started, cpu = time.perf_counter(), time.process_time()
    for site in dataset.sites[:SITES]:
        learner.train(
            weights, dataset.cohorts[site].train, site=site, round_index=0, prototypes=({}, {})
        )
    training, training_cpu = time.perf_counter() - started, time.process_time() - cpu
    stages, verified = (_stages(learner.parameters, verified=flag) for flag in (False, True))
    return {
        "training_s": training,
        "training_cpu_s": training_cpu,
        "stages_cpu_s": stages,
        "stages_share_of_round": stages / (training_cpu + stages),
        "verified_stages_cpu_s": verified,
        "verified_stages_share_of_round": verified / (training_cpu + verified),
        "stages_parameters": float(learner.parameters),
    }


def _stages(count: int, *, verified: bool) -> float:
    """CPU seconds of all parties, median of three."""
    runs = (session.run(SITES, count, verified=verified) for _ in range(3))
    times = [SITES * sum(costs.site.values()) + sum(costs.combiner.values()) for costs in runs]
    return sorted(times)[1]
