"""Objects from clusters: boundaries, merging, tracks, ranking, pixels (docs/method.md, sections 8 to 10)."""
