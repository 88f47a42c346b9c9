import subprocess
import sys

import convert_bubil
import convert_curvas
import convert_curvas_pdacvi
import convert_kits23
import convert_lidc_idri
import convert_lidc_nodules
import convert_msseg2016
import convert_oai_knee
import convert_qubiq2021
import convert_riga_plus
import convert_scgm
import pytest

SCRIPTS = (
    convert_bubil,
    convert_curvas,
    convert_curvas_pdacvi,
    convert_kits23,
    convert_lidc_idri,
    convert_lidc_nodules,
    convert_msseg2016,
    convert_oai_knee,
    convert_qubiq2021,
    convert_riga_plus,
    convert_scgm,
)
MORE_FLAGS = {convert_qubiq2021: ["--set", "kidney"]}
every_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)


@every_script
def test_docstring_says_source_terms_citation_tree_and_what_was_tested(script):
    for word in ("\nSource: ", "\nTerms: ", "\nCitation: ", "\nExpected tree", "\nTested on "):
        assert word in script.__doc__


@every_script
def test_a_missing_folder_is_one_line_and_code_2(script, tmp_path, capsys):
    assert script.main([str(tmp_path / "absent"), "-d", "501", *MORE_FLAGS.get(script, [])]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no such folder" in error


@every_script
def test_a_folder_without_the_data_is_one_line_and_code_2(script, source, capsys):
    assert script.main([str(source), "-d", "501", *MORE_FLAGS.get(script, [])]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@every_script
def test_a_wrong_flag_is_one_line_and_code_2(script, source, capsys):
    with pytest.raises(SystemExit, match="2"):
        script.main([str(source), "-d", "501", "--colour", *MORE_FLAGS.get(script, [])])
    assert capsys.readouterr().err.count("\n") == 1


@every_script
def test_part_of_a_flag_is_no_flag(script, source, capsys):
    with pytest.raises(SystemExit, match="2"):
        script.main([str(source), "-d", "501", "--over", *MORE_FLAGS.get(script, [])])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "unrecognized arguments: --over" in error


def test_a_folder_that_cannot_be_written_is_one_line_and_code_2(source, tools, tmp_path, monkeypatch, capsys):
    def convert(*args, **options):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr("conversion_cli.convert", convert)
    for number in (1, 2):
        name = f"kidney_instance-1_annotation-{number}.nii.gz"
        tools.write_volume(source / "dataset" / "case_00000" / "instances" / name, tools.box_mask((3, 6, 6)))
    tools.write_volume(source / "dataset" / "case_00000" / "imaging.nii.gz", tools.ct())
    assert convert_kits23.main([str(source), "-d", "501", "-np", "1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{tmp_path}: Permission denied" in error


def test_a_script_runs_with_several_processes(source, tools, tmp_path):
    for case in (
        "case_00000",
        "case_00001",
    ):  # rater masks are made by functions, which the processes must find
        tools.write_volume(source / "dataset" / case / "imaging.nii.gz", tools.ct())
        for number in (1, 2):
            name = f"kidney_instance-1_annotation-{number}.nii.gz"
            tools.write_volume(source / "dataset" / case / "instances" / name, tools.box_mask((3, 6, 6)))
    command = [sys.executable, convert_kits23.__file__, str(source), "-d", "12", "-np", "2"]
    result = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "nnUNet_raw" / "Dataset012_KiTS23" / "dataset.json").is_file()
    again = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
