"""Adam in less memory: rounding, small moments, moments in host memory."""
