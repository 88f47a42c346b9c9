"""One case of a conversion, in this order: `read`, `fuse`, `apply_priors`, `write`."""
