//! The committed header is what cbindgen makes of the sources, and has only the library's names. `MMC_BLESS=1 cargo test --test header`
//! renews it.

use std::path::Path;

fn generated() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let mut text = Vec::new();
    cbindgen::Builder::new()
        .with_crate(root)
        .with_config(config)
        .generate()
        .unwrap()
        .write(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn the_committed_header_is_current() {
    let text = generated();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/mmc.h");
    if std::env::var_os("MMC_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "include/mmc.h is stale: renew it with `make header`");
}

#[test]
fn every_macro_has_the_prefix_of_the_library() {
    let text = generated();
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("#define "))
        .filter_map(|rest| rest.split([' ', '(']).next())
        .collect();
    assert!(names.contains(&"MMC_OK"), "{names:?}");
    // cbindgen takes every `pub const` of the sources, an associated one too: a macro of another name is one that nobody meant for C.
    let strange: Vec<_> = names.iter().filter(|name| !name.starts_with("MMC_")).collect();
    assert!(strange.is_empty(), "{strange:?}");
}
