"""Persistence: the journal, the snapshots, the store on disk, and restoring a memory from them."""
