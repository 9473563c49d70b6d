//! `mmc` keeps the KV blocks of an LLM engine in memory, inside the engine's process, behind a C ABI.
//!
//! A module uses only what stands below it:
//!
//! ```text
//! ffi      http                    the two faces: C ABI and admin thread. No logic of their own
//! pool                             what a handle stands for: a store of this process, or a pool that another one owns
//!     share   attach               a pool's owner, who serves other processes; one of those
//!     store                        put, get, remove, evict: each operation readable top to bottom
//!   evict   index   hold   event   which copy goes; key -> slot; who keeps memory beyond a call; what is told
//!     object                       an object's life, its copies, who needs them
//!     segment                      memory, its allocator, the way of bytes into it and out
//! copy  slab  metrics  trace  gate  sync  stripe  key  clock  config  error  log
//! ```
//!
//! Start reading at `store`: its `put` is the story of the whole. Then `object` for how readers and writers share an object
//! without a lock, `index` for how a key is found, `segment` for memory, `share` for how other processes take part.
//!
//! The public surface is the C ABI in [`ffi`]; `include/mmc.h` is generated from it.

#[cfg(panic = "abort")]
compile_error!("mmc catches panics at its C ABI: build it with panic = \"unwind\"");
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("mmc is for 64-bit Linux");

mod attach;
mod clock;
mod config;
pub mod copy;
pub mod error;
mod event;
mod evict;
pub mod ffi;
mod gate;
mod hold;
mod http;
mod index;
mod key;
mod log;
mod metrics;
mod object;
mod pool;
mod segment;
mod share;
mod slab;
mod store;
mod stripe;
mod sync;
mod trace;

#[doc(hidden)]
pub use metrics::cost_of_counting;
#[cfg(fuzzing)]
#[doc(hidden)]
pub use share::frames::{fuzz_frames, seeds_of_frames};
