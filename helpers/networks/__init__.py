"""What sees: networks, their pretrained weights and their training."""

from helpers import paths

paths.quiet_tensorflow()
