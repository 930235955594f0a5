"""Images and labels as ``Patient`` values: synthetic sites, manifests, the paper's layouts.

May import ``fedbcs_secure.study`` and ``fedbcs_secure.errors``; never torch's networks, never the
network. Everything here stays at the site.
"""
