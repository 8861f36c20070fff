"""Records of what an audit found: typed and versioned, read by report, tracking and evaluation."""
