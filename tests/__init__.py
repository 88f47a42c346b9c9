"""A package, so that no other folder of this name in an environment is taken for it."""
