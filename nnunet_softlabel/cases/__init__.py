"""What the user has: images, masks of several raters, patients, and the file patterns that find them."""

from __future__ import annotations

from nnunet_softlabel.cases.case import Case, Source
from nnunet_softlabel.cases.find import find_cases
from nnunet_softlabel.cases.groups import read_groups, with_groups, with_test_cases

__all__ = ["Case", "Source", "find_cases", "read_groups", "with_groups", "with_test_cases"]
