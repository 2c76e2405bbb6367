"""Pub/Sub's pushes: the endpoint that takes them, and the tokens that say who sent them."""
