"""What an answer says: labels, ratings, LaTeX, items of information; never a guess."""
