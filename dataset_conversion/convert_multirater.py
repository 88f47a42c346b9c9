"""Any multi-rater data set, by file patterns: the same as ``nnunet_softlabel convert``.

    python dataset_conversion/convert_multirater.py -d 501 -n LIDC --images 'images/{case}.nii.gz' \\
        --channel-names CT --raters 'raters/{case}_rater{rater}.nii.gz' --labels nodule=1

A data set whose files need more than a pattern gets a script like the others here: a generator of `Case`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nnunet_softlabel import cli


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.main(["convert", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    sys.exit(main())
