"""The token classifier: labels, windows, model, judging and calibration."""
