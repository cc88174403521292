"""Who commits, what is written and not committed, what happens on a database's error, what is repeated."""
