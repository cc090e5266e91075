"""Sprites: generated videos with exact object masks."""
