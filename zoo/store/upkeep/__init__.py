"""Looking after a zoo: check, repair, repack, publish."""
