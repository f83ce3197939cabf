"""Images: from files, data sets and packages, decoded once, shown as sheets, written as PNG."""
