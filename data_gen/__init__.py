"""Recipes into trained populations: what members draw, what trains them, what stores them."""
