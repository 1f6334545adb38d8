"""What outlives the process: journal, snapshots, the store and what is restored from them."""
