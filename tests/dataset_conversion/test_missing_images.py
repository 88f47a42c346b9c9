"""A download that stopped: masks are there, their image is not."""

from __future__ import annotations

from pathlib import Path

import convert_curvas
import convert_qubiq2021
import convert_riga_plus
import convert_scgm
import pytest

from nnunet_softlabel.errors import DatasetError

MASKS = {
    convert_scgm: ["site1-sc01-mask-r1.nii.gz"],
    convert_curvas: ["training_set/UKCHLL001/annotation_1.nii.gz"],
    convert_qubiq2021: ["training_data_v3_QC/kidney/Training/case01/task01_seg01.nii.gz"],
    convert_riga_plus: ["RIGA-mask/BinRushed/BinRushed1/image1-1.tif"],
}


@pytest.mark.parametrize("script", MASKS, ids=[script.__name__ for script in MASKS])
def test_masks_without_their_image_are_refused(tmp_path: Path, script) -> None:
    for name in MASKS[script]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DatasetError, match="is missing though its masks are there"):
        list(script.cases(tmp_path))
