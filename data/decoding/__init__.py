"""Decode video files with Pillow, PyAV or OpenCV."""
