"""What SQLAlchemy does, done with less where nobody can tell the difference: reads, transactions, commits and closing.

Each way is taken only where nothing else has a say in it – a listener, an option, a mapping out of the ordinary – and
everything else goes through SQLAlchemy as ever.
"""
