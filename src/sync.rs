//! The atomics of the parts that are model-checked.
//!
//! `tests/models.rs` compiles those very files with its own `sync`, which has loom's types under the same names.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
