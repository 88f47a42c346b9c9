import convert_kits23
import numpy as np
import pytest

from nnunet_softlabel.conversion.settings import Fusion
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.images import read_grid, read_mask, write_image
from nnunet_softlabel.formats.soft_dataset import SoftDataset


@pytest.fixture
def kidneys(source, tools):
    for case, annotations in (("case_00000", (1, 2, 3)), ("case_00002", (1, 2, 3)), ("case_00586", (1,))):
        folder = source / "dataset" / case
        tools.write_volume(folder / "imaging.nii.gz", tools.ct())
        for number in annotations:
            for name, stop in (
                ("kidney_instance-1", (3, 10, 9)),
                ("cyst_instance-1", (3, 5, 5)),
                ("tumor_instance-1", (3, 4, 2 + number)),
            ):
                path = folder / "instances" / f"{name}_annotation-{number}.nii.gz"
                tools.write_volume(path, tools.box_mask(stop))
        tools.write_volume(folder / "segmentation.nii.gz", tools.box_mask((3, 10, 9)))
    return source


def test_objects_are_merged_as_kits_merges_them(kidneys, tools):
    merged = tools.voxels(next(convert_kits23.cases(kidneys)).raters["annotation2"])
    # tumour (2 columns) over cyst (3) over kidney, all from row 2 and column 2
    assert merged[1, 2, 2:8].tolist() == [2, 2, 3, 1, 1, 1]


def test_regions_hold_the_share_of_annotations_and_single_ones_are_dropped(kidneys, tools):
    folder, content = tools.to_dataset(
        convert_kits23.cases(kidneys),
        labels=convert_kits23.LABELS,
        channel_names=["CT"],
        fusion=Fusion(min_raters=2, few_raters="drop"),
    )
    assert content["soft_labels"]["dropped_cases"] == ["case_00586"]
    assert content["regions_class_order"] == [1, 3, 2]
    whole, mass, tumor = SoftDataset(folder).read_soft("case_00000")[:, 1, 2, 2:6]
    assert whole.tolist() == [1, 1, 1, 1]
    assert mass.tolist() == pytest.approx([1, 1, 1, 0])
    assert tumor.tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0])


def test_the_script_says_what_it_found_and_what_it_leaves_out(kidneys, capsys, nnunet_folders) -> None:
    assert convert_kits23.main([str(kidneys), "-d", "501", "-np", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "Left out, for fewer than 2 raters: 1 case (case_00586); dataset.json lists them.",
        "2 cases: 2 for training, 0 for testing.",
        "Rater annotation1: 2 cases.",
    ]
    assert any(line.startswith("Raters dispute ") for line in lines)
    assert lines[-2].startswith("WARNING: 2 training cases are too few for nnU-Net's 5 folds")


def test_an_image_that_was_not_downloaded_is_named_with_the_program_that_fetches_it(
    kidneys, capsys, nnunet_folders
) -> None:
    (kidneys / "dataset" / "case_00586" / "imaging.nii.gz").unlink()  # is dropped for its single annotation
    (kidneys / "dataset" / "case_00002" / "imaging.nii.gz").unlink()
    assert convert_kits23.main([str(kidneys), "-d", "501"]) == 2
    error = capsys.readouterr().err
    assert "case_00002/imaging.nii.gz: no such file; `kits23_download_data`" in error
    assert error.count("\n") == 1


def test_an_annotation_some_object_lacks_is_no_rater(kidneys):
    (kidneys / "dataset" / "case_00000" / "instances" / "tumor_instance-1_annotation-1.nii.gz").unlink()
    assert sorted(next(convert_kits23.cases(kidneys)).raters) == ["annotation2", "annotation3"]


def test_objects_on_different_grids_are_refused(kidneys, tools):
    path = kidneys / "dataset" / "case_00000" / "instances" / "tumor_instance-1_annotation-1.nii.gz"
    tools.write_volume(path, tools.box_mask((3, 4, 4)), spacing=(1.0, 1.0, 1.0))
    with pytest.raises(DatasetError, match=r"tumor_instance-1_annotation-1\.nii\.gz: is on another grid"):
        tools.voxels(next(convert_kits23.cases(kidneys)).raters["annotation1"])


@pytest.mark.shared_data
@pytest.mark.parametrize("case", ["case_00152", "case_00257"])
def test_real_masks_are_merged_into_three_annotations_of_each_case(shared_data, source, case):
    """The CT is not at hand: a blank image lies on the grid of the masks."""
    folder = source / "dataset" / case
    folder.mkdir(parents=True)
    (folder / "instances").symlink_to(shared_data / "kits23_instances" / "dataset" / case / "instances")
    (found,) = convert_kits23.cases(source)
    assert sorted(found.raters) == ["annotation1", "annotation2", "annotation3"]
    merged, grid = found.raters["annotation1"]()
    assert sorted(np.unique(merged).tolist()) == [0, 1, 2, 3]
    tumours = sorted((folder / "instances").glob("tumor_*_annotation-1.nii.gz"))
    tumour = np.any([read_mask(path)[0] > 0 for path in tumours], axis=0)
    np.testing.assert_array_equal(merged == 2, tumour)  # tumours overwrite everything else
    assert merged.shape == grid.shape
    other, _ = found.raters["annotation2"]()
    overlap = 2 * ((merged > 0) & (other > 0)).sum() / ((merged > 0).sum() + (other > 0).sum())
    assert 0.9 < overlap < 1  # annotators of one kidney agree, and are not the same


@pytest.mark.shared_data
def test_the_script_converts_a_real_case(shared_data, source):
    """All three annotations of a real case, from the masks to soft labels; the CT is blank."""
    folder = source / "dataset" / "case_00152"
    folder.mkdir(parents=True)
    (folder / "instances").symlink_to(
        shared_data / "kits23_instances" / "dataset" / "case_00152" / "instances"
    )
    grid = read_grid(next((folder / "instances").glob("*.nii.gz")))
    write_image(folder / "imaging.nii.gz", np.zeros(grid.shape, np.int16), grid)
    assert convert_kits23.main([str(source), "-d", "501", "-np", "1"]) == 0
    dataset = SoftDataset.find(501)
    whole, mass, tumor = dataset.read_soft("case_00152")
    for channel in (whole, mass, tumor):
        assert np.unique(channel) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert (mass <= whole).all()
    assert (tumor <= mass).all()
    assert dataset.about["has_anonymous_raters"]
