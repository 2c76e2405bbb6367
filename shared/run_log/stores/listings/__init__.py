"""Listings: which runs a page has, where it ends, and the cursor that goes on from there."""
