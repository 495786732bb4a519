"""Tables and intervals over the runs in a folder."""
