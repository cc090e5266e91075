"""A training run on disk: checkpoints, resuming, log, provenance; and signals that ask it to stop."""
