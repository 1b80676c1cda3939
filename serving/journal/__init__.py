"""The usage journal: one writer per gateway process, one shipper per node."""
