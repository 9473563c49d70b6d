//! Opening and closing a store.

use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::Arc;

use super::boundary::guard;
use super::convert::{check_reserved, put_out, read, require_out, switch_from, text_from};
use super::handle::{self, Instance};
use super::types::{MMC_ABI_VERSION, MMC_MEMORY_MEMFD, MMC_MEMORY_PRIVATE, MMC_NO_DRAM, mmc_config, mmc_store};
use crate::config::{Memory, Options};
use crate::error::{Result, invalid};
use crate::http::{Admin, Server};
use crate::log::{self, Level, say};
use crate::store::Store;

/// The version of the library, "major.minor.patch". A static string. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mmc_version() -> *const std::ffi::c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The version of the interface that the library has: at least the MMC_ABI_VERSION of every header that it serves. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mmc_abi_version() -> u32 {
    MMC_ABI_VERSION
}

/// Makes a config of the caller's one in which nothing is set.
///
/// `config`: where to write; its old content does not matter. Returns MMC_OK, or MMC_ERR_INVALID_PARAM for null. Never blocks; any
/// thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_config_init(config: *mut mmc_config) -> i32 {
    guard("mmc_config_init", || {
        require_out("config", config)?;
        // SAFETY: the caller gives a struct of the size that it had when this symbol got its meaning: a later, larger one gets a symbol
        // of its own behind the same name in the header. All zero is valid.
        unsafe {
            std::ptr::write_bytes(config, 0, 1);
            (*config).struct_size = size_of::<mmc_config>() as u32;
        }
        Ok(())
    })
}

/// Opens a store.
///
/// `config`: the settings, or null for the defaults: one DRAM segment of 1 GiB and rank 0, mapped as it is touched, watermarks 90 and 80, no
/// admin port. Borrowed for the call. `store`: where the handle goes on success, to be closed with mmc_uninit.
///
/// Returns MMC_OK; MMC_ERR_INVALID_PARAM for a setting that is wrong, wherever it comes from, by name; MMC_ERR_IO when the
/// file can't be read or the admin port's address is taken; MMC_ERR_OUT_OF_MEMORY when the segment can't be mapped or a thread not
/// started; MMC_ERR_NO_SPACE when 1024 stores are open. On failure nothing is left open. Blocks while files are read and, with `prefault`,
/// while memory is touched. Any thread; several stores may be open at once. Since 0.1.
///
/// Example: `mmc_store *store; if (mmc_init(NULL, &store) != MMC_OK) puts(mmc_last_error());`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_init(config: *const mmc_config, store: *mut *mut mmc_store) -> i32 {
    guard("mmc_init", || {
        require_out("store", store)?;
        // SAFETY: the caller gives null or a config whose strings are C strings.
        let options = unsafe { options_from(config)? };
        let (config, notes) = options.resolve(&|name| std::env::var(name).ok())?;
        if let Some(level) = config.log_level {
            log::set_level(level);
        }
        for note in notes {
            say!(note.level, "{}", note.message);
        }
        let opened = Store::open(&config)?;
        let http = match &config.http_address {
            None => Ok(None),
            Some(address) => {
                let admin = Arc::clone(&opened) as Arc<dyn Admin>;
                Server::start(address, config.http_token.as_deref(), admin).map(Some)
            }
        };
        let http = http.inspect_err(|_| opened.stop())?;
        if let Some(server) = &http {
            say!(Level::Info, "admin port listens at {}", server.address());
        }
        let instance = Instance::new(Arc::clone(&opened), http);
        let handle = handle::open(instance).inspect_err(|_| opened.stop())?;
        // SAFETY: not null, and the caller's to write.
        unsafe { put_out(store, handle.cast()) };
        Ok(())
    })
}

/// Closes a store. Null does nothing.
///
/// `store`: the handle; it is void on success, and any later call with it returns MMC_ERR_NOT_STARTED.
///
/// Waits for calls of other threads that are in the store, copies too, stops the admin port and the store's threads, and lets its memory go.
/// When pins or reservations are open in memory that the library mapped, that memory stays, and mmc_unpin, mmc_commit (which then only
/// gives up) and mmc_abort still take their tokens; the last one lets it go. No event callback runs after it has returned.
///
/// Returns MMC_OK; MMC_ERR_BUSY, with the store still open, when a pin, lease or reservation is in memory of the host, or when called
/// from a callback of the library; MMC_ERR_NOT_STARTED when it is closed already; MMC_ERR_FORKED in a child of the process that opened
/// it. Any thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_uninit(store: *mut mmc_store) -> i32 {
    guard("mmc_uninit", || {
        if store.is_null() {
            return Ok(());
        }
        handle::close(store.cast_const().cast::<c_void>())
    })
}

/// The settings that a caller gives.
///
/// # Safety
/// `config` is null or a struct of the caller's whose strings are null or C strings.
unsafe fn options_from(config: *const mmc_config) -> Result<Options> {
    // SAFETY: promised by the caller.
    let Some(config) = (unsafe { read(config)? }) else {
        return Ok(Options::default());
    };
    check_reserved("mmc_config", config.reserved)?;
    let number = |value: u32| (value != 0).then_some(value);
    // SAFETY: the strings are the caller's, null or C strings.
    let (http_address, http_token, config_path) = unsafe {
        (
            text_from("http_address", config.http_address)?,
            text_from("http_token", config.http_token)?,
            text_from("config_path", config.config_path)?,
        )
    };
    Ok(Options {
        dram_size: match config.dram_size {
            0 => None,
            MMC_NO_DRAM => Some(0),
            bytes => Some(bytes),
        },
        rank: number(config.rank),
        watermark_high: number(config.watermark_high),
        watermark_low: number(config.watermark_low),
        http_address,
        http_token,
        log_level: match config.log_level {
            0 => None,
            level => Some(Level::from_number(level).ok_or_else(|| invalid!("log_level {level}: must be 1 to 6"))?),
        },
        huge_pages: switch_from("huge_pages", config.huge_pages)?,
        prefault: switch_from("prefault", config.prefault)?,
        memory: memory_from(config.memory)?,
        numa_node: number(config.numa_node).map(|node| node - 1),
        config_path: config_path.map(PathBuf::from),
    })
}

/// A kind of memory; `None` for 0.
pub(super) fn memory_from(number: u32) -> Result<Option<Memory>> {
    match number {
        0 => Ok(None),
        MMC_MEMORY_PRIVATE => Ok(Some(Memory::Private)),
        MMC_MEMORY_MEMFD => Ok(Some(Memory::Memfd)),
        _ => Err(invalid!(
            "memory {number}: must be MMC_MEMORY_PRIVATE (1), MMC_MEMORY_MEMFD (2), or 0 for the default"
        )),
    }
}
