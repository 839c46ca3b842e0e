"""Adapters: our models inside of other evaluation harnesses."""
