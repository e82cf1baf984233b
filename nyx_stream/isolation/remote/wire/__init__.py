"""What host and worker share: frames, their order, their bodies, and what carries them."""
