"""Data of the study: rows to train on, to tune on and to report, out of public data sets."""
