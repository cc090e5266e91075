"""Scoring of label PNGs; `python -m utils.scoring` is the program."""
