//! The catalog and library state machines: decide, apply, view, search, segment and manifest formats.
