"""What both sides of the channel share: frames, protocol, messages, and the values in them."""
