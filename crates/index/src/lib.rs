//! Immutable search structures over dense rows.
