"""A package, so that a study runs from the root as ``python -m docs.studies.NAME``."""
