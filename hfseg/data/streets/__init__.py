"""Drawn street scenes: the camera and its strokes, what stands in a street, and how a scene is put together."""
