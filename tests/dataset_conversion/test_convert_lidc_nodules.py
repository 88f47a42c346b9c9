import json

import convert_lidc_nodules
import pytest

LINES = """case,patient
LIDC-IDRI-0001_R_1,LIDC-IDRI-0001
LIDC-IDRI-0001_R_2,LIDC-IDRI-0001
LIDC-IDRI-0002_R_1,LIDC-IDRI-0002
"""


@pytest.fixture
def nodules(source, tools):
    (source / "cases.csv").write_text(LINES)
    for line in LINES.split()[1:]:
        case = line.split(",")[0]
        tools.write_volume(source / "images" / f"{case}.nii.gz", tools.ct())
        for rater in (1, 2, 3):
            path = source / "raters" / f"{case}_rater{rater}.nii.gz"
            tools.write_volume(path, tools.box_mask((3, 6, 3 + rater)))
    return source


def test_patients_are_never_on_both_sides_of_a_split(nodules, tools, tmp_path):
    folder, content = tools.to_dataset(
        convert_lidc_nodules.cases(nodules), labels=["nodule=1"], channel_names=["CT"]
    )
    assert content["soft_labels"]["raters"] == ["1", "2", "3"]
    splits = json.loads(
        (tmp_path / "nnUNet_preprocessed" / folder.name / "splits_final.json").read_text(encoding="utf-8")
    )
    for fold in splits:
        assert not {name[:14] for name in fold["train"]} & {name[:14] for name in fold["val"]}


@pytest.mark.shared_data
def test_real_nodules_keep_their_readers_and_patients(shared_data):
    cases = list(convert_lidc_nodules.cases(shared_data / "lidc_nodules"))
    assert len(cases) == 486
    assert len({case.group for case in cases}) == 330
    assert sorted({len(case.raters) for case in cases}) == [3, 4]
