"""A truth in any layout is the same truth."""

from __future__ import annotations

import argparse
import gzip
import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunet_softlabel.cli import main
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.digests import digest_of_folders
from nnunet_softlabel.evaluation.known_truth import KnownTruth
from nnunet_softlabel.evaluation.references import References
from nnunet_softlabel.evaluation.run import Scoring, evaluate
from nnunet_softlabel.evaluation.truth import TRUTH_FLAGS, Truth, truth_of_flags
from nnunet_softlabel.formats.images import read_mask, write_image
from nnunet_softlabel.formats.labels import Labels
from tests.formats.dicom_files import write_dicom
from tests.formats.test_slicer import write_segmentation


@pytest.fixture
def data(build, tmp_path):
    """A data set; its consensus is the truth, in ``truth``."""
    made = build(cases=2)
    shutil.copytree(made.dataset.folder / "labelsTr", tmp_path / "truth")
    return made.dataset


def read(dataset, truth, case="case1"):
    references = References.of(dataset, case, split="Tr")
    hard, grid = references.hard, references.grid
    return KnownTruth.find(dataset, truth, ["case0", "case1"]).read(case, grid).label_map, hard


def test_a_folder_a_pattern_and_a_table(data, tmp_path):
    (tmp_path / "t.csv").write_text("case;mask\ncase0;truth/case0.nii.gz\ncase1;truth/case1.nii.gz\n")
    for place in (tmp_path / "truth", tmp_path / "tr*" / "{case}.nii.gz", tmp_path / "t.csv"):
        found, hard = read(data, place)
        np.testing.assert_array_equal(found, hard)


@pytest.mark.parametrize(("name", "labels"), [("lesion", None), ("Lesion", ["lesion=Lesion"])])
def test_segments_of_slicer_by_name(data, tmp_path, name, labels):
    for case in ("case0", "case1"):
        path = tmp_path / "truth" / f"{case}.nii.gz"
        array, grid = read_mask(path)
        path.unlink()
        segmentation = path.with_name(f"{case}.seg.nrrd")
        write_segmentation(segmentation, [(name, 0, 5)], (5 * array)[None].astype(np.uint8))
        image = sitk.ReadImage(str(segmentation))
        image.SetSpacing(grid.spacing_mm)
        image.SetOrigin(grid.origin)
        image.SetDirection(grid.direction)
        sitk.WriteImage(image, str(segmentation))
    found, hard = read(data, Truth(tmp_path / "truth", labels))
    np.testing.assert_array_equal(found, hard)


@pytest.mark.parametrize(("labels", "place"), [(None, 0), (["lesion=2"], 1)])
def test_a_channel_per_class(data, tmp_path, labels, place):
    for path in sorted((tmp_path / "truth").glob("*.nii.gz")):
        mask = sitk.ReadImage(str(path), sitk.sitkUInt8)
        channels = [mask * 0, mask * 0]
        channels[place] = mask * 255
        sitk.WriteImage(sitk.JoinSeries(channels), str(path))
    found, hard = read(data, Truth(tmp_path / "truth", labels, class_axis="last"))
    np.testing.assert_array_equal(found, hard)


def test_what_no_label_names_is_told_with_the_flag_of_the_truth(data, tmp_path):
    for path in sorted((tmp_path / "truth").glob("*.nii.gz")):
        mask = sitk.ReadImage(str(path), sitk.sitkUInt8)
        sitk.WriteImage(sitk.JoinSeries([mask, mask]), str(path))
    with pytest.raises(DatasetError, match="holds the channel 2, which no --truth-labels entry names"):
        read(data, Truth(tmp_path / "truth", class_axis="last"))
    with pytest.raises(UsageError, match=r"^--truth-labels: names other, but"):
        read(data, Truth(tmp_path / "truth", ["other=1"]))


def test_dicom_segments_by_label(data, tmp_path):
    pytest.importorskip("highdicom")
    for path in sorted((tmp_path / "truth").glob("*.nii.gz")):
        array, grid = read_mask(path)
        path.unlink()
        write_dicom(path.with_name(f"{path.name[:-7]}.dcm"), {"lesion": array > 0}, grid=grid)
    found, hard = read(data, tmp_path / "truth")
    np.testing.assert_array_equal(found, hard)


def test_turned_axes_and_regrid(data, tmp_path):
    path = tmp_path / "truth" / "case1.nii.gz"
    image = sitk.ReadImage(str(path))
    sitk.WriteImage(sitk.PermuteAxes(image, (2, 0, 1)), str(path))
    found, hard = read(data, tmp_path / "truth")
    np.testing.assert_array_equal(found, hard)
    sitk.WriteImage(sitk.Expand(image, (2, 2, 2), sitk.sitkNearestNeighbor), str(path))
    with pytest.raises(DatasetError, match=r"the truth has shape .*spacing_mm .*add --regrid"):
        read(data, tmp_path / "truth")
    found, hard = read(data, Truth(tmp_path / "truth", regrid="nearest"))
    np.testing.assert_array_equal(found, hard)


def test_values_of_its_own(data, tmp_path):
    for path in sorted((tmp_path / "truth").glob("*.nii.gz")):
        sitk.WriteImage(sitk.ReadImage(str(path)) * 7, str(path))
    with pytest.raises(DatasetError, match="the truth holds the value 7, which no label has"):
        read(data, tmp_path / "truth")
    for labels in (["lesion=7"], {"lesion": 7}):
        found, hard = read(data, Truth(tmp_path / "truth", labels))
        np.testing.assert_array_equal(found, hard)


def test_two_files_of_a_case_are_both_named(data, tmp_path):
    shutil.copytree(tmp_path / "truth", tmp_path / "truth2")
    with pytest.raises(DatasetError, match=r"case0: --truth .* holds .*truth/case0.* and .*truth2/case0"):
        read(data, tmp_path / "truth*" / "{case}.nii.gz")


def flags(**given):
    names = ["truth", *(flag[2:].replace("-", "_") for flag in TRUTH_FLAGS)]
    return argparse.Namespace(**dict.fromkeys(names) | given)


def test_flags_without_truth_are_refused(tmp_path):
    with pytest.raises(UsageError, match="--regrid: belongs to --truth; add it"):
        truth_of_flags(flags(regrid="nearest"))
    with pytest.raises(UsageError, match="--truth-labels, --class-axis: belongs to --truth"):
        truth_of_flags(flags(class_axis="last", truth_labels=["a=1"]))
    assert truth_of_flags(flags()) is None
    assert truth_of_flags(flags(truth=tmp_path, rater_axis="last", truth_fusion="mean")) == Truth(
        tmp_path, rater_axis="last", fusion="mean"
    )


def test_a_folder_with_files_of_another_format_is_told_to_be_a_pattern(data, tmp_path):
    for path in sorted((tmp_path / "truth").glob("*.nii.gz")):
        sitk.WriteImage(sitk.ReadImage(str(path)), str(path.with_name(f"{path.name[:-7]}.mha")))
        path.unlink()
    with pytest.raises(DatasetError, match=r"holds no case0.nii.gz of it; for other .* give a pattern"):
        read(data, tmp_path / "truth")
    found, hard = read(data, tmp_path / "truth" / "{case}.mha")
    np.testing.assert_array_equal(found, hard)


def test_several_raters_are_refused_or_their_mean_is_the_truth(data, tmp_path):
    place = tmp_path / "raters" / "{rater}" / "{case}.nii.gz"
    shutil.copytree(data.folder / "raterLabelsTr", tmp_path / "raters")
    raters = sorted(folder.name for folder in (tmp_path / "raters").iterdir())
    with pytest.raises(
        DatasetError, match=rf"case0: --truth .* holds {len(raters)} raters \({raters[0]}, .*mean"
    ):
        read(data, place)
    found, hard = read(data, Truth(place, fusion="mean"))
    np.testing.assert_array_equal(found, hard)  # the consensus of the data set is that of the mean
    soft, grid = data.read_soft("case1"), References.of(data, "case1", split="Tr").grid
    known = KnownTruth.find(data, Truth(place, fusion="mean"), ["case1"]).read("case1", grid)
    np.testing.assert_allclose(known.soft, soft, atol=1e-4)
    one, _ = read(data, tmp_path / "raters" / f"{{rater:{raters[0]}}}" / "{case}.nii.gz")
    np.testing.assert_array_equal(one, data.read_raters("case1")[raters[0]])


def test_raters_as_channels_of_a_file_and_as_columns_of_a_table(data, tmp_path):
    rows = ["case,r1,r2,r3"]
    for case in ("case0", "case1"):
        files = list(data.rater_files(case).values())
        sitk.WriteImage(
            sitk.JoinSeries([sitk.ReadImage(str(f)) for f in files]), str(tmp_path / f"{case}.nii.gz")
        )
        rows.append(",".join([case, *map(str, files)]))
    (tmp_path / "t.csv").write_text("\n".join(rows[:1] + [r for r in rows[1:]]))
    for truth in (
        Truth(tmp_path / "{case}.nii.gz", rater_axis="last", fusion="mean"),
        Truth(tmp_path / "t.csv", fusion="mean"),
    ):
        found, hard = read(data, truth)
        np.testing.assert_array_equal(found, hard)
    with pytest.raises(DatasetError, match=r"holds 3 raters \(1, 2, 3\)"):
        read(data, Truth(tmp_path / "{case}.nii.gz", rater_axis="last"))
    with pytest.raises(DatasetError, match="several channels in one file"):
        read(data, tmp_path / "{case}.nii.gz")


def maps_of(data, tmp_path, scale, dtype):
    for case in ("case0", "case1"):
        for path in data.soft_files(case):
            image = sitk.ReadImage(str(path))
            array = (
                np.rint(sitk.GetArrayFromImage(image) * scale)
                if dtype == np.uint8
                else (sitk.GetArrayFromImage(image) * scale)
            )
            made = sitk.GetImageFromArray(array.astype(dtype))
            made.CopyInformation(image)
            sitk.WriteImage(made, str(tmp_path / f"{case}_lesion.nii.gz"))


@pytest.mark.parametrize(
    ("pattern", "scale", "dtype"),
    [
        ("{case}_{label}.nii.gz", None, np.float32),
        ("{case}_{label}.nii.gz", 255, np.uint8),
        ("{case}_lesion.nii.gz", 1, np.float32),
    ],
)
def test_probability_maps_are_a_soft_truth(data, tmp_path, pattern, scale, dtype):
    maps_of(data, tmp_path, scale or 1, dtype)
    truth = Truth(tmp_path / pattern, soft_scale=scale)
    found, hard = read(data, truth)
    np.testing.assert_array_equal(found, hard)
    soft, grid = data.read_soft("case1"), References.of(data, "case1", split="Tr").grid
    known = KnownTruth.find(data, truth, ["case1"]).read("case1", grid)
    np.testing.assert_allclose(known.soft, soft, atol=3e-3)


def test_probability_maps_without_a_word_are_told_the_flag(data, tmp_path):
    maps_of(data, tmp_path, 1, np.float32)
    with pytest.raises(DatasetError, match="for probability maps add --soft-scale 1"):
        read(data, tmp_path / "{case}_lesion.nii.gz")
    with pytest.raises(DatasetError, match=r"holds no case0.nii.gz of it"):
        read(data, tmp_path / "absent" / "{case}_{label}.nii.gz")


def test_scores_against_a_soft_truth_are_those_against_the_soft_label(build, tmp_path):
    made = build(cases=2)
    place = tmp_path / "raters" / "{rater}" / "{case}.nii.gz"
    shutil.copytree(made.dataset.folder / "raterLabelsTr", tmp_path / "raters")
    found = evaluate(
        made.dataset,
        made.predictions,
        tmp_path / "out",
        scoring=Scoring(truth=Truth(place, fusion="mean")),
        num_processes=1,
    )
    model = found["mean"]["model"]
    assert model["truth"]["lesion"]["brier"]["mean"] == pytest.approx(
        model["soft"]["lesion"]["brier"]["mean"], rel=1e-3
    )
    assert model["truth"]["lesion"]["dice"] == model["consensus"]["lesion"]["dice"]


def as_dataset(folder, labels, tmp_path):
    for path in sorted((tmp_path / "truth").glob("*.nii.gz")):
        (folder / "labelsTr").mkdir(parents=True, exist_ok=True)
        mask = sitk.ReadImage(str(path), sitk.sitkUInt8)
        sitk.WriteImage(mask * max(labels.values()), str(folder / "labelsTr" / path.name))
    content = {"channel_names": {"0": "MR"}, "labels": labels, "numTraining": 2, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


def test_a_data_set_of_nnunet_is_matched_by_name(data, tmp_path, monkeypatch):
    folder = tmp_path / "raw" / "Dataset930_Truth"
    as_dataset(folder, {"background": 0, "lesion": 1}, tmp_path)
    found, hard = read(data, folder)
    np.testing.assert_array_equal(found, hard)
    as_dataset(folder, {"background": 0, "bone": 1, "lesion": 2}, tmp_path)
    for place in (folder, folder / "labelsTr"):
        with pytest.raises(UsageError, match=r"its labels are bone, lesion, .* with --truth-labels"):
            read(data, place)
        found, hard = read(data, Truth(place, ["lesion=2"]))
        np.testing.assert_array_equal(found, hard)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    found, hard = read(data, Truth("930", ["lesion=2"]))
    np.testing.assert_array_equal(found, hard)


def test_options_that_do_not_go_together_are_refused(data, tmp_path):
    for options, message in (
        ({"soft_scale": 0}, "give the value that means 1"),
        ({"rater_axis": "last", "class_axis": "last"}, "a channel is a rater's label map"),
    ):
        with pytest.raises(UsageError, match=message):
            Truth(tmp_path, **options)
    for pattern, options in (
        ("{case}_{rater}_{label}.nii.gz", {}),
        ("{case}_{rater}.nii.gz", {"rater_axis": "last"}),
        ("{case}_{label}.nii.gz", {"class_axis": "last"}),
    ):
        with pytest.raises(UsageError, match="leave out"):
            read(data, Truth(tmp_path / pattern, **options))


def test_a_digest_tells_one_reading_from_another(build, tmp_path):
    made = build(cases=2)
    shutil.copytree(made.dataset.folder / "labelsTr", tmp_path / "truth")
    found = {
        digest_of_folders(made.dataset, made.predictions, truth=truth)
        for truth in (
            tmp_path / "truth",
            Truth(tmp_path / "truth", regrid="nearest"),
            Truth(tmp_path / "truth", ["lesion=1"]),
        )
    }
    assert len(found) == 3


@pytest.mark.parametrize("command", ["tune-threshold", "evaluate"])
def test_commands_take_the_flags_of_a_truth(build, tmp_path, monkeypatch, capsys, command):
    made = build(cases=2)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    words = [command, "-d", "900", "-i", str(made.predictions), "-np", "1"]
    words += ["-o", str(tmp_path / ("t.json" if command == "tune-threshold" else "out"))]
    against = ["--against", "truth"] if command == "tune-threshold" else []
    truth = ["--truth", str(made.dataset.folder / "raterLabelsTr" / "{rater}" / "{case}.nii.gz")]
    assert main([*words, *against, "--truth-fusion", "mean"]) == 2
    assert "--truth" in capsys.readouterr().err
    assert main([*words, *against, *truth]) == 2
    assert "holds 3 raters (ann, bob, eve)" in capsys.readouterr().err
    assert main([*words, *against, *truth, "--truth-fusion", "mean"]) == 0
    if command == "tune-threshold":
        assert main([*words, "--overwrite", *truth, "--truth-fusion", "mean"]) == 2
        assert "--truth: belongs to --against truth; add it" in capsys.readouterr().err


def test_a_truth_that_was_moved_is_told(build, tmp_path, monkeypatch, capsys):
    made = build(cases=2)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    shutil.copytree(made.dataset.folder / "labelsTr", tmp_path / "truth")
    path = tmp_path / "truth" / "case1.nii.gz"
    image = sitk.ReadImage(str(path))
    sitk.WriteImage(sitk.Expand(image, (2, 2, 2), sitk.sitkNearestNeighbor), str(path))
    words = ["evaluate", "-d", "900", "-i", str(made.predictions), "-np", "1", "-o", str(tmp_path / "out")]
    words += ["--truth", str(tmp_path / "truth"), "--regrid", "nearest"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "Truth: 1 file was put on the grid of the image (--regrid nearest); voxels moved by " in out
    image.SetOrigin((900.0, 0.0, 0.0))
    sitk.WriteImage(image, str(path))
    for flags in (words, words[:-2]):
        assert main([*flags, "--overwrite"]) == 2
        assert "misses the image altogether); --regrid cannot mend that" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".TIFF"])
def test_flat_truths(build, tmp_path, ending):
    made = build(cases=2, ending=".png")
    for case in ("case0", "case1"):
        array, _ = read_mask(made.dataset.label_file(case))
        Image.fromarray(array).save(tmp_path / f"{case}{ending}")
    found, hard = read(made.dataset, tmp_path / f"{{case}}{ending}")
    np.testing.assert_array_equal(found, hard)


@pytest.mark.parametrize("intercept", [0.0, -3.0])
def test_scaled_integers(data, tmp_path, intercept):
    for path in sorted((tmp_path / "truth").glob("*.nii.gz")):
        array, grid = read_mask(path)
        slope = 4 / 30001
        stored = np.rint((array - intercept) / slope).astype(np.int16)
        write_image(path.with_suffix(""), stored, grid)
        content = bytearray(path.with_suffix("").read_bytes())
        content[112:120] = np.float32([slope, intercept]).tobytes()  # scl_slope, scl_inter
        path.write_bytes(gzip.compress(content))
        path.with_suffix("").unlink()
        assert (read_mask(path)[0] % 1).any()
    found, hard = read(data, tmp_path / "truth")
    np.testing.assert_array_equal(found, hard)


@pytest.mark.parametrize(("value", "is_refused"), [(128 / 255, False), (128.3 / 255, True)])
def test_maps_of_8_bit_may_sum_to_more_than_1_by_rounding(build, tmp_path, value, is_refused):
    made = build(Labels({"lesion": (1,), "core": (2,)}), cases=2)
    for case in ("case0", "case1"):
        for name, path in zip(("lesion", "core"), made.dataset.soft_files(case), strict=True):
            array, grid = read_mask(path)
            constant = np.full_like(array, value, np.float32)
            write_image(tmp_path / f"{case}_{name}.nii.gz", constant, grid)
    if is_refused:
        with pytest.raises(DatasetError, match=r"maps of the truth sum to 1\.006; classes must"):
            read(made.dataset, tmp_path / "{case}_{label}.nii.gz")
    else:
        read(made.dataset, tmp_path / "{case}_{label}.nii.gz")


def test_maps_of_two_labels_in_one_file(build, tmp_path):
    made = build(Labels({"lesion": (1,), "core": (2,)}), cases=2)
    for case in ("case0", "case1"):
        maps = [sitk.ReadImage(str(path)) for path in made.dataset.soft_files(case)]
        sitk.WriteImage(sitk.JoinSeries(maps), str(tmp_path / f"{case}.nii.gz"))
    found, hard = read(made.dataset, Truth(tmp_path / "{case}.nii.gz", soft_scale=1, class_axis="last"))
    np.testing.assert_array_equal(found, hard)
    for case in ("case0", "case1"):
        maps = [sitk.ReadImage(str(path)) for path in made.dataset.soft_files(case)]
        sitk.WriteImage(sitk.JoinSeries([*maps, maps[0]]), str(tmp_path / f"{case}.nii.gz"))
    with pytest.raises(DatasetError, match="which no --truth-labels entry names, and it is not just what"):
        read(made.dataset, Truth(tmp_path / "{case}.nii.gz", soft_scale=1, class_axis="last"))
    with pytest.raises(UsageError, match=r"maps, of 2 labels; put \{label\} into the pattern, or add"):
        read(made.dataset, Truth(tmp_path / "{case}.nii.gz", soft_scale=1))
    for case in ("case0", "case1"):
        shutil.copy(made.dataset.soft_files(case)[0], tmp_path / f"{case}_lesion.nii.gz")
    with pytest.raises(DatasetError, match="holds no probability map of label core; add it"):
        read(made.dataset, tmp_path / "{case}_{label}.nii.gz")
