"""What sees: networks, their pretrained weights and their training."""
