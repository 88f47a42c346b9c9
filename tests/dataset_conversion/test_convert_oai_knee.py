import convert_oai_knee
import numpy as np
import pytest

from nnunet_softlabel.formats.soft_dataset import SoftDataset

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


def write_bright_knee(source, tools, knee, seed):
    """Bone everywhere but in two columns, a bright lesion in it, and two raters who overlap."""
    image = np.random.default_rng(seed).normal(100, 10, (4, 12, 10)).astype(np.float32)
    image[1:3, 2:8, 2:8] += 200
    tools.write_volume(source / "images" / f"{knee}.nii.gz", image)
    bones = np.ones((4, 12, 10), dtype=np.uint8)
    bones[:, :, 8:] = 2
    tools.write_volume(source / "bones" / f"{knee}.nii.gz", bones)
    for rater, stop in (("anna", (3, 8, 8)), ("ben", (3, 8, 10))):
        tools.write_volume(source / "raters" / rater / f"{knee}.nii.gz", tools.box_mask(stop))


def test_lesions_are_bright_and_in_bone(source, tools, tmp_path):
    for seed, knee in enumerate(KNEES):
        write_bright_knee(source, tools, knee, seed)
    for priors, steps in (("both", ["roi", "intensity"]), ("roi", ["roi"]), ("none", [])):
        arguments = [str(source), "-d", "501", "-np", "1", "--overwrite", "--priors", priors]
        assert convert_oai_knee.main(arguments) == 0
        dataset = SoftDataset(tmp_path / "nnUNet_raw" / "Dataset501_KneeBML")
        assert [step["name"] for step in (dataset.about["prior"] or {"steps": []})["steps"]] == steps
        # ben alone drew beyond the bone, 0.7 mm outside: all of it, or what the margin of 2 mm leaves
        weight = 1 if priors == "none" else (1 + np.cos(np.pi * 0.7 / 2)) / 2
        assert dataset.read_soft(KNEES[0])[0, 1, 5, 8] == pytest.approx(0.5 * weight, abs=1e-5)


def test_knees_of_a_subject_stay_together_and_raters_may_lack_cases(knees, tools):
    cases = list(convert_oai_knee.cases(knees))
    assert [case.group for case in cases] == ["9001104", "9001104", "9001400"]
    _, content = tools.to_dataset(cases, labels=["lesion=1"], channel_names=["MRI"])
    assert content["soft_labels"]["raters_of_case"]["9001104_00_RIGHT"] == ["anna", "ben"]
