"""How an answer goes on after it broke off: what was said of it, and the seam to what is said next. Sans-IO."""
