import convert_oai_knee
import numpy as np
import pytest

KNEES = ("9001104_00_LEFT", "9001104_00_RIGHT", "9001400_12_RIGHT")


@pytest.fixture
def knees(source, tools):
    for number, knee in enumerate(KNEES):
        tools.write_volume(source / "images" / f"{knee}.nii.gz", tools.ct())
        bones = np.zeros((4, 12, 10), dtype=np.uint8)
        bones[:, :, :6] = np.arange(6)
        tools.write_volume(source / "bones" / f"{knee}.nii.gz", bones)
        for rater in ("anna", "ben", "cleo")[: 3 - (number == 1)]:
            tools.write_volume(source / "raters" / rater / f"{knee}.nii.gz", tools.box_mask((3, 6, 6)))
    return source


def test_bone_goes_along_as_roi_without_cartilage(knees, tools):
    case = next(convert_oai_knee.cases(knees))
    # columns hold the values 0 to 5; femur 1, tibia 3 and patella 5 are bone
    assert tools.voxels(case.rois["bone"])[0, 0, :7].tolist() == [0, 1, 0, 1, 0, 1, 0]


def test_knees_of_a_subject_stay_together_and_raters_may_lack_cases(knees, tools):
    cases = list(convert_oai_knee.cases(knees))
    assert [case.group for case in cases] == ["9001104", "9001104", "9001400"]
    _, content = tools.to_dataset(cases, labels=["lesion=1"], channel_names=["MRI"])
    assert content["soft_labels"]["raters_of_case"]["9001104_00_RIGHT"] == ["anna", "ben"]
