"""How events are committed to a document store. No vendor: Firestore uses it, and so do simulations."""
