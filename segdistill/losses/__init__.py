"""The four dense losses as pure functions, and the weighted objective over them."""
