"""Tests of utils, and slow references that they use."""
