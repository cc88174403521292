"""One peer a file: how its documentation gives a handler its session. The handlers are the same for all."""
