"""Paired worlds: scenes that are drawn twice, as a game and in a style."""
