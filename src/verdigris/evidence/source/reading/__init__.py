"""The tree read as Python: files, modules, names, types, calls, except clauses, what an expression is worth."""
