"""Networks, losses, prototypes, local training and metrics: the only folder that imports torch.

- ``recalibration``: FSR, one affine map for each image and channel.
- ``fusion``, ``_quadratic``: what losses need of both views' fused maps, without forming them.
- ``unet``: the network and what it hands on (``Features``).
- ``losses``: segmentation loss and the two forms of prototype alignment.
- ``prototypes``: class means of fused features, and the global prototypes of a round.
- ``finch``: the published aggregation of prototypes (numpy and scipy only).
- ``evaluate``: predictions and metrics of patients and sites.
- ``initial``, ``weights``, ``modelfile``: first weights, flat vectors, model files.
- ``augment``, ``local``, ``learner``, ``device``: a site's training of one round, and the seam to
  the code that knows no torch.

May import ``fedbcs_secure.data``, ``fedbcs_secure.study``, ``fedbcs_secure.errors`` and
``fedbcs_protocols``; never ``federation`` or ``cli``. Nothing here prints or opens a connection,
everything follows the device and dtype of its inputs, and randomness comes in as an argument.
"""
