"""`verdigris fix`: what of a finding a tool can write, written: keywords of calls, and nothing else of a file."""
