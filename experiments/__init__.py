"""Command lines over the library: sweep, report, prepare, benchmark."""
