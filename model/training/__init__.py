"""The training step and the monitor that watches it without labels."""
