"""Sampling on the devices: temperature, top-k, top-p, a sharded vocabulary."""
