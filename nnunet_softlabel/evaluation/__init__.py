"""Stage 4: from predictions to scores against soft labels, consensus, raters and truth. No torch in here."""

SEARCHED = "beside the predictions"  # a calibration without a file: look for it there
