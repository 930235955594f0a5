"""The ledgers of simulated sites, in the run folder: real ones, under keys that lie beside them.

Between institutions a site's ledger is on its own disk, under its own key file (``keygen``). A
simulation plays all sites, so there is nobody to hide these keys from.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fedbcs_protocols.identity import Identity
from fedbcs_secure.data.records import Dataset
from fedbcs_secure.errors import RunFolderError
from fedbcs_secure.federation.booking import Books
from fedbcs_secure.federation.memory import Lasting
from fedbcs_secure.federation.readies import ReadyFile
from fedbcs_secure.files import write_durably
from fedbcs_secure.privacy.cost import cost as cost_of
from fedbcs_secure.privacy.ledger import Ledger
from fedbcs_secure.privacy.policy import SitePolicy
from fedbcs_secure.privacy.schedule import study_events
from fedbcs_secure.study import Study

FOLDER = "ledgers"
SERVER = "server"
_KEY_FILE = "simulated.key"
_KEY_BYTES = 64


def study_policy(study: Study, cap: float | None = None) -> SitePolicy:
    """A policy that allows this study and no more; ``cap``: this epsilon in place of its own."""
    privacy = study.privacy
    if privacy is None:
        raise ValueError("a study without [privacy] needs no policy")
    cost = study_events(study)
    allowed = cap if cap is not None else _just_above(cost_of(cost.joint, privacy.delta))
    local = max(allowed, _just_above(cost_of(cost.own, privacy.delta)))
    noises = [privacy.noise_multiplier, privacy.prototype_noise or math.inf]
    return SitePolicy(
        epsilon=allowed,
        delta=privacy.delta,
        local_epsilon=local if privacy.noise == "shared" else None,
        min_noise_multiplier=min(noises),
        max_clip=max(privacy.clip, privacy.prototype_clip),
        protections=(study.protection,),
        unit=privacy.unit,
    )


@contextmanager
def opened(
    folder: Path, study: Study, dataset: Dataset, policies: Mapping[str, SitePolicy]
) -> Iterator[dict[str, Books]]:
    """Each site's books while the run goes on; made if there are none."""
    with ExitStack() as stack:
        books = {}
        for site_entry in study.roster:
            name = site_entry.name
            place = folder / FOLDER / name
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            identity, storage_key = _keys(place / _KEY_FILE)
            ledger = Ledger.open(
                place / "ledger.sqlite",
                head=place / "ledger.head",
                identity=identity,
                storage_key=storage_key,
                policy=policies[name],
            )
            stack.callback(ledger.close)
            patients = frozenset(p.known_as for p in dataset.cohorts[name].train)
            books[name] = Books(ledger, patients)
        yield books


def lasting(folder: Path, study: Study) -> Lasting:
    """Who the parties are in every process of a run, and how far the server saw each ledger.

    A site that is given an older copy of its whole folder is told so by what it signed (RO-7.4).
    """
    (folder / SERVER).mkdir(exist_ok=True, mode=0o700)
    return Lasting(
        identities={e.name: _keys(folder / FOLDER / e.name / _KEY_FILE)[0] for e in study.roster},
        server=_keys(folder / SERVER / _KEY_FILE)[0],
        readies=ReadyFile(folder / SERVER / "readies"),
    )


def _keys(path: Path) -> tuple[Identity, bytes]:
    if not path.exists():
        write_durably(path, secrets.token_bytes(_KEY_BYTES), mode=0o600)
    with path.open("rb") as stream:
        data = stream.read(_KEY_BYTES + 1)
    if len(data) != _KEY_BYTES:
        raise RunFolderError(f"{path} is no simulated site's key")
    return Identity.from_secret_bytes(data[:32]), data[32:]


def _just_above(value: float) -> float:
    return math.nextafter(value * (1 + 1e-9), math.inf)
