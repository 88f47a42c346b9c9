"""Is it the label, or would recalibration do? And the mean of three networks."""
