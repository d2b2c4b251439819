//! Distances over slices of f32: one function table per CPU, with a scalar oracle.
