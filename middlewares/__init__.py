"""What stands in a chain: one idea a file. A middleware never imports another."""
