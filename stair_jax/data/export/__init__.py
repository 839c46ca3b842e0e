"""Rows as the files that other trainers read: `stair-jax data export`."""
