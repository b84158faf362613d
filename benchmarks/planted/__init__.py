"""Which planted faults the rules analyst finds."""
