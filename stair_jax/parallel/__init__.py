"""Meshes, logical axis rules, processes of a distributed run."""
