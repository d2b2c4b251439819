//! Everything that follows the log.
