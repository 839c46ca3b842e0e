"""Pages about finished runs, made of their records alone: no device is used, nothing is changed."""
