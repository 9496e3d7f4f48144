"""`lifecycle demo`: plays the stories of the guide on a whole installation, and checks how each ends."""
