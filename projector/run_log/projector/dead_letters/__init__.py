"""Dead letters: what they say, how they are leased, and how they are published again or thrown away."""
