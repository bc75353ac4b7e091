"""The parts of a model card; `hfseg.model_card` puts them together."""
