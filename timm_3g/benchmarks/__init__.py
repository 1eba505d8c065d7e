"""Time, memory and precision of the poolings on this machine, against their textbook forms."""
