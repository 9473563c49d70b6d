//! The C ABI: check arguments, call the store, turn the result into a code.
//!
//! Every export is wrapped in `boundary::guard`, which keeps this thread's last error and lets no panic out. A store is known to the
//! host by a handle that is looked up, not followed (`handle`). The order of the modules is the order of the header: what a user needs first
//! comes first. Documentation here is written for the reader of `include/mmc.h`, which is generated from it.

// What a caller must promise is in each function's text, in words for C.
#![allow(clippy::missing_safety_doc, clippy::too_many_arguments)]

pub mod types;

pub mod lifetime;
pub mod segments;

pub mod sharing;

pub mod objects;

pub mod batches;

pub mod inplace;

pub mod report;

mod boundary;
mod convert;
mod handle;
mod slot;
