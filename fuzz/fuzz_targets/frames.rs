//! Frames as a peer may send them, against the owner of a pool: what is checked is in `src/share/frames.rs`.
//!
//! With `MMC_FUZZ_SEEDS` it writes conversations to begin from into that directory, and ends.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: {
        if let Some(directory) = std::env::var_os("MMC_FUZZ_SEEDS") {
            for (number, seed) in mmc::seeds_of_frames().iter().enumerate() {
                let path = std::path::Path::new(&directory).join(format!("seed-{number}"));
                std::fs::write(path, seed).expect("the directory is there");
            }
            std::process::exit(0);
        }
    },
    |data: &[u8]| mmc::fuzz_frames(data)
);
