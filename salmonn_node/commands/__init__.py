"""Sub-commands of salmonn, one file each: they parse, call and print."""
