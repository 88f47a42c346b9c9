import json

import convert_multirater
import pytest


def test_multirater_is_the_convert_command(source, tools, tmp_path):
    for case in ("a", "b"):
        tools.write_volume(source / "images" / f"{case}.nii.gz", tools.ct())
        for rater in ("r1", "r2"):
            tools.write_volume(source / "raters" / f"{case}_{rater}.nii.gz", tools.box_mask((3, 6, 6)))
    flags = ["-d", "7", "-n", "Any", "--channel-names", "CT", "--labels", "lesion=1", "-np", "1"]
    patterns = [
        "--images",
        f"{source}/images/{{case}}.nii.gz",
        "--raters",
        f"{source}/raters/{{case}}_{{rater}}.nii.gz",
    ]
    assert convert_multirater.main([*flags, *patterns]) == 0
    content = json.loads(
        (tmp_path / "nnUNet_raw" / "Dataset007_Any" / "dataset.json").read_text(encoding="utf-8")
    )
    assert content["soft_labels"]["raters"] == ["r1", "r2"]


def test_a_wrong_flag_ends_with_code_2(capsys):
    with pytest.raises(SystemExit, match="2"):
        convert_multirater.main(["--raterz", "x"])
    assert capsys.readouterr().err.count("\n") == 1
