import convert_qubiq2021
import numpy as np
import pytest
import SimpleITK
from skimage import io

from nnunet_softlabel.cases.find import find_cases
from nnunet_softlabel.conversion.run import convert
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.soft_dataset import SoftDataset


def write_nifti(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path))


@pytest.fixture
def slices(source, tools):
    """Flat kidneys with two ways to name a mask, stacked brain tumours, and a pancreas volume."""
    for top, folder, case in (
        ("training_data_v3_QC", "Training", "case01"),
        ("training_data_v3_QC", "Training", "case02"),
        ("validation_data_qubiq2021_QC", "Validation", "case21"),
    ):
        kidney, tumor = source / top / "kidney" / folder / case, source / top / "brain-tumor" / folder / case
        write_nifti(kidney / "image.nii.gz", tools.ct((12, 10)).astype(np.float64))
        write_nifti(tumor / "image.nii.gz", np.arange(4 * 12 * 10, dtype=np.float32).reshape(4, 12, 10))
        for rater in (1, 2, 3):
            mask = tools.box_mask((6, 3 + rater), shape=(12, 10))
            name = "task01" if case == "case01" else case
            write_nifti(kidney / f"{name}_seg0{rater}.nii.gz", mask if rater < 3 else mask[np.newaxis])
            for task in (1, 2, 3):
                write_nifti(tumor / f"task0{task}_seg0{rater}.nii.gz", mask * (task == 2))
    for case in ("case1-1", "case1-2", "case2-1"):
        pancreas = source / "training_data_v3_QC" / "pancreas" / case
        tools.write_volume(pancreas / "image.nii.gz", tools.ct())
        for rater in (1, 2):
            write_nifti(pancreas / f"task01_seg0{rater}.nii.gz", tools.box_mask((3, 6, 3 + rater)))
    return source


def test_flat_images_become_volumes_of_one_slice(slices, tools):
    folder, content = tools.to_dataset(
        convert_qubiq2021.cases(slices), labels=["kidney=1"], channel_names=["CT"]
    )
    assert (content["numTraining"], content["file_ending"]) == (2, ".nii.gz")
    dataset = SoftDataset(folder)
    assert dataset.cases("Ts") == ["case21"]
    for case in dataset.cases():
        soft = dataset.read_soft(case)
        assert soft.shape == (1, 1, 12, 10)
        assert soft[0, 0, 3, 2:7].tolist() == pytest.approx([1, 1, 2 / 3, 1 / 3, 0])


def test_stacked_sequences_become_channels_and_tasks_are_apart(slices, tools):
    case = next(convert_qubiq2021.cases(slices, "brain-tumor", 2))
    assert [tools.voxels(image)[0, 0, 0] for image in case.images] == [0, 120, 240, 360]
    assert all(tools.voxels(mask).any() for mask in case.raters.values())
    empty = next(convert_qubiq2021.cases(slices, "brain-tumor", 1))
    assert not any(tools.voxels(mask).any() for mask in empty.raters.values())


def test_volumes_keep_their_grid_and_scans_of_a_patient_stay_together(slices, tools):
    cases = list(convert_qubiq2021.cases(slices, "pancreas"))
    assert [case.group for case in cases] == ["case1", "case1", "case2"]
    array, grid = cases[0].images[0]()
    assert array.shape == (4, 12, 10)
    assert grid.spacing_mm == pytest.approx((0.7, 0.7, 2.5))
    _, content = tools.to_dataset(cases, labels=["pancreas=1"], channel_names=["CT"])
    assert content["numTraining"] == 3


def test_a_task_that_a_set_lacks_is_refused(slices):
    with pytest.raises(UsageError, match="kidney has the tasks 1 to 1"):
        list(convert_qubiq2021.cases(slices, "kidney", 2))


@pytest.mark.shared_data
def test_real_brain_growth_has_seven_raters_who_roughly_agree(shared_data, tmp_path):
    """The real images and masks, written as the challenge gives them out, and as the folder has them."""
    real = shared_data / "qubiq_brain_growth"
    names = [f"case{number:02d}" for number in (1, 7, 38)]
    for name in names:
        folder = tmp_path / "challenge" / "training_data_v3_QC" / "brain-growth" / "Training" / name
        write_nifti(folder / "image.nii.gz", io.imread(real / "images" / f"{name}.png").astype(np.float64))
        for rater in range(1, 8):
            mask = io.imread(real / "raters" / str(rater) / f"{name}.png") > 127
            write_nifti(folder / f"task01_seg0{rater}.nii.gz", mask.astype(np.float64))
    (tmp_path / "plain").mkdir()
    for kind in ("images", "raters"):
        (tmp_path / "plain" / kind).symlink_to(real / kind)
    challenge = list(convert_qubiq2021.cases(tmp_path / "challenge", "brain-growth"))
    options = {
        "channel_names": ["MRI"],
    }
    first = convert(challenge, "Dataset501_Challenge", labels=["brain_growth=1"], **options)
    patterns = [f"{tmp_path}/plain/images/{{case:{','.join(names)}}}.png"]
    raters = [f"{tmp_path}/plain/raters/{{rater}}/{{case:{','.join(names)}}}.png"]
    plain = find_cases(patterns, raters=raters)
    second = convert(plain, "Dataset502_Plain", labels=["brain_growth=255"], **options)
    for name in names:
        soft = SoftDataset(first).read_soft(name)[:, 0]
        np.testing.assert_allclose(soft, SoftDataset(second).read_soft(name), atol=1e-4)
        assert len(SoftDataset(first).read_raters(name)) == 7
        disputed = ((soft > 0) & (soft < 1)).sum() / (soft > 0).sum()
        assert 0.2 < disputed < 0.8
