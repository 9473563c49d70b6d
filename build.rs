//! How the shared library is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Threads of the HTTP server outlive it by seconds: after `dlclose` the code must stay mapped.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // The number is that of the ABI: it changes when a program linked before can't run with the library any more.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libmmc.so.0");
}
