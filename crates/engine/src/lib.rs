//! The engine: writer, replay, checkpoints, merges, admission, clock and ids; usable without any server.
