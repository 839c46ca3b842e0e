"""Processes of a distributed run: how they meet, talk, and watch each other."""
