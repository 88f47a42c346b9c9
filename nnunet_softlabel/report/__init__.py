"""Stage 5: from the scores of several trainers to one page with tests, figures and pictures."""
