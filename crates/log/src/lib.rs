//! One durable, ordered log: a file backend and a memory backend.
