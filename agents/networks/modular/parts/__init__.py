"""Parts of programs: each file has one part's parameters, what they do, and what they cost."""
