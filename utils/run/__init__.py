"""A training run on disk: checkpoints, log, signals, provenance."""
