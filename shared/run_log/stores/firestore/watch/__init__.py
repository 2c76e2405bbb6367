"""Watches of Firestore: one listener for all of an event loop, and pages for whoever is behind it."""
