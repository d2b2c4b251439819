"""Our indexes and those of other libraries, measured side by side on one machine."""
