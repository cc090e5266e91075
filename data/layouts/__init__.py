"""Layouts: where each data set keeps the frames and annotations of its videos."""
