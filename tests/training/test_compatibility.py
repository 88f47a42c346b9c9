"""docs/compatibility.md names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8").splitlines()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in LINES if line.startswith("|")]
NAMES = {name: test for name, test in (row for row in ROWS if len(row) == 2) if "::" in test}
TABLE = [row for row in ROWS if len(row) == 5 and row[0] and not row[0].startswith("-")]


def test_every_named_test_exists():
    for test in NAMES.values():
        path, function = test.split("::")
        assert re.search(
            rf"^def {function}\(", (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE
        ), test


def test_every_cell_names_a_test():
    used = {name for row in TABLE for cell in row[1:] for name in cell.split(", ")} - {"same", "-"}
    assert used == set(NAMES)
    for row in TABLE:
        assert any(cell not in ("same", "-") for cell in row[1:]), f"no test backs {row[0]}"


def test_the_modes_of_the_design_are_rows():
    text = "\n".join(row[0] for row in TABLE)
    for word in ("Classes", "Regions", "ignore label", "Anisotropic", "Masked", "--c", "Residual", "compile"):
        assert word in text
