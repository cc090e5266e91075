"""Layouts: the objects that know how the tree of a dataset looks."""
