"""How a zoo lies on disk: places, arrays, chunk files, the ledger, locks, splits."""
