"""The embedded data set: four simulated hospitals, drawn with numpy alone.

Pelvic T2 MRI with the prostate gland as label, and H&E patches with the nuclei as label. Nobody
was examined for it; it shows what differs between hospitals, not what disease looks like.

``shapes`` outlines and random fields; ``scanner`` and ``stain`` the sites' style; ``anatomy`` and
``mri`` the pelvis; ``histology`` the slides; ``dataset`` patients and splits. Imports run in that
order.
"""

from fedbcs_secure.data.synthetic.dataset import (
    DEFAULT_SEVERITY,
    Modality,
    draw_patient,
    make_dataset,
)
from fedbcs_secure.data.synthetic.scanner import SITES

__all__ = ["DEFAULT_SEVERITY", "SITES", "Modality", "draw_patient", "make_dataset"]
