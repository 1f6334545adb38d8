"""Where model, observer, answerer and store are put together, for the node and for recordings alike."""
