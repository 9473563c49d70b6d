//! The committed header is what cbindgen makes of the sources. `MMC_BLESS=1 cargo test --test header` renews it.

use std::path::Path;

#[test]
fn the_committed_header_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let mut text = Vec::new();
    cbindgen::Builder::new()
        .with_crate(root)
        .with_config(config)
        .generate()
        .unwrap()
        .write(&mut text);
    let path = root.join("include/mmc.h");
    if std::env::var_os("MMC_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read(&path).unwrap_or_default();
    assert!(committed == text, "include/mmc.h is stale: renew it with `make header`");
}
