"""`verdigris fix`: what of a finding a tool can write, written: a few tokens, and nothing else of a file."""
