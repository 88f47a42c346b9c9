"""Scores against soft labels and raters, tests between trainers, the report. No torch in here."""
