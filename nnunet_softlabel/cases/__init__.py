"""What the user has: images, masks of several raters, patients; the patterns and tables that find them."""

from __future__ import annotations

from nnunet_softlabel.cases.case import Case, Source
from nnunet_softlabel.cases.files import RaterFiles, SoftFiles
from nnunet_softlabel.cases.find import find_cases
from nnunet_softlabel.cases.groups import read_groups, with_groups, with_test_cases
from nnunet_softlabel.cases.label_maps import FileOptions
from nnunet_softlabel.cases.missing import with_missing_raters
from nnunet_softlabel.cases.rater_datasets import read_rater_datasets
from nnunet_softlabel.cases.table import read_case_table
from nnunet_softlabel.formats.channels import Channel

__all__ = [
    "Case",
    "Channel",
    "FileOptions",
    "RaterFiles",
    "SoftFiles",
    "Source",
    "find_cases",
    "read_case_table",
    "read_groups",
    "read_rater_datasets",
    "with_groups",
    "with_missing_raters",
    "with_test_cases",
]
