"""Compute the clustering of docs/method.md, section 5, faster and in bounded memory (section 11)."""
