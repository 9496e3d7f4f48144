"""`lifecycle demo`: plays the stories of the guide on a whole installation, and checks the end state of each story."""
