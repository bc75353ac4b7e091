"""Drawn data sets in the official layouts."""
