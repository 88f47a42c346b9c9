"""One case of ``--dry-run``: everything that writing it would do, but no file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.conversion.case_records import CaseRecord
from nnunet_softlabel.conversion.one_case.apply_priors import apply_priors
from nnunet_softlabel.conversion.one_case.describe import describe
from nnunet_softlabel.conversion.one_case.fuse import fuse_case
from nnunet_softlabel.conversion.one_case.read import load_case
from nnunet_softlabel.conversion.one_case.write import check_can_be_written
from nnunet_softlabel.conversion.settings import CaseSettings, has_too_few_raters


def look_at_case(case: Case, settings: CaseSettings) -> CaseRecord:
    """Read, check and fuse a case, and write nothing.

    Raises:
        DatasetError: for any file that is not what it should be.
    """
    record: CaseRecord = {"case": case.name, "raters": sorted(case.raters), "is_test": case.is_test}
    if has_too_few_raters(case, settings):
        record["is_dropped"] = True
        return record
    loaded = load_case(case, settings)
    fused = fuse_case(case, loaded, settings)
    if settings.priors:
        fused = replace(fused, soft=apply_priors(case, loaded, fused, settings)[0])
    check_can_be_written(case, loaded, fused, settings)
    expected = [float(packed.whole().sum(dtype=np.float64)) for packed in fused.soft]
    record |= describe(fused.soft, loaded, settings.labels, expected)
    record["moved"] = {what: move.to_json() for what, move in loaded.moved.items()}
    return record
