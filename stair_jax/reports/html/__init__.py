"""The report of runs as one page of HTML that needs nothing else, and the same page served."""
