"""Who disagrees with whom, and where: what to know about raters before their labels are fused.

`inspect_raters` compares cases, `dataset_cases` and `pattern_cases` find them, `write_inspection` writes the
result. `measure_case` works on arrays alone.
"""

from __future__ import annotations

from nnunet_softlabel.inspection.measures import CaseMeasures, fleiss_kappa, measure_case
from nnunet_softlabel.inspection.output import format_inspection, write_inspection
from nnunet_softlabel.inspection.read import as_dark, dataset_cases, pattern_cases
from nnunet_softlabel.inspection.run import inspect_raters

__all__ = [
    "CaseMeasures",
    "as_dark",
    "dataset_cases",
    "fleiss_kappa",
    "format_inspection",
    "inspect_raters",
    "measure_case",
    "pattern_cases",
    "write_inspection",
]
