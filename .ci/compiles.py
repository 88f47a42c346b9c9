"""Does every Python file of the repository compile with this version of Python? Writes nothing."""

import pathlib
import sys

FOLDERS = ("nnunet_softlabel", "dataset_conversion", "tests", "docs")

paths = [path for folder in FOLDERS for path in sorted(pathlib.Path(folder).rglob("*.py"))]
for path in paths:
    compile(path.read_text(encoding="utf-8"), str(path), "exec")
print(f"Python {sys.version_info[0]}.{sys.version_info[1]}: {len(paths)} files compile")
