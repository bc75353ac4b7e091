"""The models and their loss. Models import no data code."""
