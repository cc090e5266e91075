"""Programs that measure speed and memory, and draw attention maps."""
