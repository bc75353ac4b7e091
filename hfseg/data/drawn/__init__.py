"""Data sets that hfseg draws itself, in the folder layouts of Oxford-IIIT Pet and Cityscapes."""

from hfseg.data.drawn.pets import SYNTHETIC_VERSION, write_synthetic_pet
from hfseg.data.drawn.streets import SYNTHETIC_CITYSCAPES_VERSION, write_synthetic_cityscapes

__all__ = ["SYNTHETIC_CITYSCAPES_VERSION", "SYNTHETIC_VERSION", "write_synthetic_cityscapes", "write_synthetic_pet"]
