//! Opening and closing a store.

use std::ffi::{c_char, c_void};
use std::path::PathBuf;
use std::ptr::with_exposed_provenance_mut;
use std::sync::Arc;
use std::time::Duration;

use super::boundary::guard;
use super::convert::{Out, check_reserved, put_out, read, require_out, slice, switch_from, text_from};
use super::handle::{self, Instance};
use super::types::{
    MMC_ABI_VERSION, MMC_EVICTION_ADAPTIVE, MMC_EVICTION_PREFIX, MMC_MEMORY_MEMFD, MMC_MEMORY_PRIVATE, MMC_NO_DRAM,
    MMC_OFF, MMC_ON, mmc_config, mmc_store,
};
use crate::clock::HostClock;
use crate::config::share::{parse_ids, text_of_ids};
use crate::config::{Config, Eviction, Memory, Note, Options, named};
use crate::error::{Result, invalid};
use crate::http::{Admin, Server};
use crate::log::{self, Level, say};
use crate::pool::Pool;
use crate::share::address::Access;
use crate::share::host::Terms;
use crate::store::Store;

/// The version of the library, "major.minor.patch". A static string. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mmc_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The version of the interface that the library has: at least the MMC_ABI_VERSION of every header that it serves. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mmc_abi_version() -> u32 {
    MMC_ABI_VERSION
}

/// Bytes of a config when `mmc_config_init` got its meaning.
const FIRST_CONFIG_BYTES: usize = 72;

/// What programs call that were built when the header declared this very symbol: their config has the size that it had then. The header's
/// own function of this name gives the size of the config along (`cbindgen.toml`).
///
/// # Safety
/// `config` is null or a config of that size, which may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_config_init(config: *mut mmc_config) -> i32 {
    // SAFETY: promised by the caller.
    guard("mmc_config_init", || unsafe { init_config(config, FIRST_CONFIG_BYTES) })
}

/// Makes a config of the caller's one in which nothing is set: what mmc_config_init does.
///
/// `config`: where to write; its old content does not matter. `size`: sizeof(mmc_config). Returns MMC_OK, or MMC_ERR_INVALID_PARAM for null
/// or a size that is none. Never blocks; any thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_config_init_sized(config: *mut mmc_config, size: usize) -> i32 {
    // SAFETY: the caller gives null or a config of this size.
    guard("mmc_config_init_sized", || unsafe { init_config(config, size) })
}

/// # Safety
/// `config` is null or a config of `size` bytes, which may be written.
unsafe fn init_config(config: *mut mmc_config, size: usize) -> Result<()> {
    require_out("config", config)?;
    let largest = 1 << 16;
    if !(FIRST_CONFIG_BYTES..largest).contains(&size) {
        return Err(invalid!(
            "size {size}: must be sizeof(mmc_config), from {FIRST_CONFIG_BYTES} to {largest}"
        ));
    }
    // SAFETY: promised by the caller; all zero is valid, and the first field is there.
    unsafe {
        std::ptr::write_bytes(config.cast::<u8>(), 0, size);
        (*config).struct_size = size as u32;
    }
    Ok(())
}

/// Reads settings from a text in the form of a config file, `key = value` lines, into a config.
///
/// `name`: what messages call the text, "mmc-local.conf" say; zero-terminated UTF-8. `text`: `size` bytes, at most 1 MiB. `config`: with its
/// `struct_size` set. What is set in it stays, and what is unset is filled where the text sets it. `strings`: where the text's
/// strings go (http_address, share and so on), each with its terminating zero; the config then points there, so they must stay as long as
/// it is used. May be null when `capacity` is 0. `capacity`: bytes there. `needed`: where the bytes needed go; may be null.
///
/// With this config mmc_init does what it would have done with the text as its file. So what the environment sets is left unset for it,
/// and `config_path`, when unset, becomes "": no other file is read. What there is to say about the text (unknown keys, keys without
/// meaning in one process, sizes that were rounded) is logged here, once, and if the caller, the environment or the text sets a level of
/// the log, that is the process's from here on.
///
/// Returns MMC_OK; MMC_ERR_INVALID_PARAM: a wrong line, as "name:line: key = value: reason", a wrong setting of the caller or the environment by
/// its name, or `strings` is too small: then `needed` was written. On failure nothing else was, and nothing logged. Never blocks; any thread.
/// Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_config_parse(
    name: *const c_char,
    text: *const c_char,
    size: usize,
    config: *mut mmc_config,
    strings: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> i32 {
    guard("mmc_config_parse", || {
        require_out("name", name)?;
        // SAFETY: the caller gives a C string, `size` bytes, and a config of the size that it says whose strings are C strings.
        let (name, text, out, mut filled) = unsafe {
            (
                text_from("name", name)?.unwrap_or_default(),
                slice("text", text.cast::<u8>(), size)?,
                Out::new(config, 1)?,
                read(config)?.expect("it is not null"),
            )
        };
        // SAFETY: as above.
        let caller = unsafe { options_of(&filled)? };
        let (options, level, notes) = caller.with_text(&name, text, &environment)?;
        fill_numbers(&mut filled, &options);
        let bytes = fill_texts(&mut filled, &options, strings);
        // SAFETY: null or the caller's to write.
        unsafe { put_out(needed, bytes.len()) };
        if bytes.len() > capacity {
            return Err(invalid!(
                "strings of {capacity} bytes: those of {name} need {}",
                bytes.len()
            ));
        }
        if !bytes.is_empty() {
            require_out("strings", strings)?;
            // SAFETY: not null, and the caller has `capacity` bytes there, which are enough.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), strings, bytes.len()) };
        }
        out.write(0, &filled);
        announce(level, notes);
        Ok(())
    })
}

/// Opens a store.
///
/// `config`: the settings, or null for the defaults: one DRAM segment of 1 GiB and rank 0, mapped as it is touched, watermarks 90 and 80, no
/// admin port. Borrowed for the call. `store`: where the handle goes on success, to be closed with mmc_uninit.
///
/// Returns MMC_OK; MMC_ERR_INVALID_PARAM for a setting that is wrong, wherever it comes from, by name, and for a state that is of another
/// version, size or store; MMC_ERR_BUSY when another store has the state open, or a process shares its pool at the `share` of the config;
/// MMC_ERR_IO when the file can't be read, the admin port's address is taken or the socket of `share` can't be made; MMC_ERR_OUT_OF_MEMORY
/// when the segment can't be mapped or a thread not started; MMC_ERR_NO_SPACE when 1024 stores are open. On failure nothing is left open. Blocks while files are read and, with `prefault`,
/// while memory is touched. Any thread; several stores may be open at once. Since 0.1.
///
/// Example: `mmc_store *store; if (mmc_init(NULL, &store) != MMC_OK) puts(mmc_last_error());`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_init(config: *const mmc_config, store: *mut *mut mmc_store) -> i32 {
    guard("mmc_init", || {
        require_out("store", store)?;
        // SAFETY: the caller gives null or a config whose strings are C strings and whose clock may be called.
        let (options, clock) = unsafe {
            let config = read(config)?;
            (
                config.map_or(Ok(Options::default()), |config| options_of(&config))?,
                config.and_then(|config| clock_of(&config)),
            )
        };
        let (config, notes) = options.resolve(&environment)?;
        announce(config.log_level, notes);
        let opened = Store::open(&config, clock)?;
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
        let instance = Instance::new(Pool::Own(opened), http, Some(terms_of(&config)));
        if let Some(address) = &config.share {
            instance.share(address).inspect_err(|_| instance.stop())?;
        }
        let handle = handle::open(instance)?;
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
/// With a state_path, what is only in memory is written to SSD first, what was used last first, as far as there is room as it is.
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

/// Sets the level of the log that the settings ask for, and says what there is to say about them.
fn announce(level: Option<Level>, notes: Vec<Note>) {
    if let Some(level) = level {
        log::set_level(level);
    }
    for note in notes {
        say!(note.level, "{}", note.message);
    }
}

/// How a store of this config is shared, if it is.
fn terms_of(config: &Config) -> Terms {
    Terms {
        access: Access {
            mode: config.share_mode,
            users: config.share_users.clone(),
            groups: config.share_groups.clone(),
        },
        wait: Duration::from_millis(config.share_wait_ms),
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The settings that a caller gives.
///
/// # Safety
/// The strings of `config` are null or C strings.
unsafe fn options_of(config: &mmc_config) -> Result<Options> {
    check_reserved("mmc_config", config.reserved)?;
    check_reserved("mmc_config", config.reserved_2)?;
    check_reserved("mmc_config", config.reserved_3)?;
    let number = |value: u32| (value != 0).then_some(value);
    // SAFETY: the strings are the caller's, null or C strings.
    let (http_address, http_token, config_path, ssd_path, state_path) = unsafe {
        (
            text_from("http_address", config.http_address)?,
            text_from("http_token", config.http_token)?,
            text_from("config_path", config.config_path)?,
            text_from("ssd_path", config.ssd_path)?,
            text_from("state_path", config.state_path)?,
        )
    };
    // SAFETY: as above.
    let (share, share_users, share_groups) = unsafe {
        (
            text_from("share", config.share)?,
            text_from("share_users", config.share_users)?,
            text_from("share_groups", config.share_groups)?,
        )
    };
    let ids = |name, text: Option<String>| text.map(|text| named(name, &text, parse_ids(&text))).transpose();
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
        eviction: eviction_from(config.eviction)?,
        config_path: config_path.map(PathBuf::from),
        ssd_path: ssd_path.map(PathBuf::from),
        ssd_size: (config.ssd_size != 0).then_some(config.ssd_size),
        move_rate: (config.move_rate != 0).then_some(config.move_rate),
        verify_dram: switch_from("verify_dram", config.verify_dram)?,
        state_path: state_path.map(PathBuf::from),
        state_wipe: switch_from("state_wipe", config.state_wipe)?,
        share,
        share_mode: number(config.share_mode),
        share_users: ids("share_users", share_users)?,
        share_groups: ids("share_groups", share_groups)?,
        share_wait_ms: (config.share_wait_ms != 0).then_some(config.share_wait_ms),
    })
}

/// The clock that a caller brings.
///
/// # Safety
/// It is null or may be called with the config's `clock_user_data`, by any thread, until the store is closed.
unsafe fn clock_of(config: &mmc_config) -> Option<HostClock> {
    let (clock, user_data) = (config.clock?, config.clock_user_data.expose_provenance());
    // SAFETY: promised by the caller.
    Some(Box::new(move || unsafe {
        clock(with_exposed_provenance_mut(user_data))
    }))
}

/// Fills the fields of a config that are unset, but for the strings and the clock, which no text has.
fn fill_numbers(config: &mut mmc_config, options: &Options) {
    fn fill<T: Default + PartialEq>(field: &mut T, value: Option<T>) {
        if *field == T::default() {
            *field = value.unwrap_or_default();
        }
    }
    let switch = |is_on: bool| if is_on { MMC_ON } else { MMC_OFF };
    fill(
        &mut config.dram_size,
        options
            .dram_size
            .map(|bytes| if bytes == 0 { MMC_NO_DRAM } else { bytes }),
    );
    fill(&mut config.rank, options.rank);
    fill(&mut config.watermark_high, options.watermark_high);
    fill(&mut config.watermark_low, options.watermark_low);
    fill(&mut config.log_level, options.log_level.map(|level| level as u32));
    fill(&mut config.huge_pages, options.huge_pages.map(switch));
    fill(&mut config.prefault, options.prefault.map(switch));
    fill(
        &mut config.memory,
        options.memory.map(|memory| match memory {
            Memory::Private => MMC_MEMORY_PRIVATE,
            Memory::Memfd => MMC_MEMORY_MEMFD,
        }),
    );
    fill(&mut config.numa_node, options.numa_node.map(|node| node + 1));
    fill(
        &mut config.eviction,
        options.eviction.map(|eviction| match eviction {
            Eviction::Prefix => MMC_EVICTION_PREFIX,
            Eviction::Adaptive => MMC_EVICTION_ADAPTIVE,
        }),
    );
    fill(&mut config.ssd_size, options.ssd_size);
    fill(&mut config.move_rate, options.move_rate);
    fill(&mut config.verify_dram, options.verify_dram.map(switch));
    fill(&mut config.state_wipe, options.state_wipe.map(switch));
    fill(&mut config.share_mode, options.share_mode);
    fill(&mut config.share_wait_ms, options.share_wait_ms);
}

/// Fills the strings of a config that are unset, and gives the bytes that are to lie at `strings`. Of a path only "" is ever filled in, which
/// is the library's own.
fn fill_texts(config: &mut mmc_config, options: &Options, strings: *mut c_char) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ssd_path = options.ssd_path.as_deref().and_then(|path| path.to_str());
    let state_path = options.state_path.as_deref().and_then(|path| path.to_str());
    let share_users = options.share_users.as_deref().map(text_of_ids);
    let share_groups = options.share_groups.as_deref().map(text_of_ids);
    let fields = [
        (&mut config.http_address, options.http_address.as_deref()),
        (&mut config.http_token, options.http_token.as_deref()),
        (&mut config.ssd_path, ssd_path),
        (&mut config.state_path, state_path),
        (&mut config.share, options.share.as_deref()),
        (&mut config.share_users, share_users.as_deref()),
        (&mut config.share_groups, share_groups.as_deref()),
    ];
    for (field, text) in fields {
        if let Some(text) = text
            && field.is_null()
        {
            *field = strings.wrapping_add(bytes.len());
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
        }
    }
    if config.config_path.is_null() {
        config.config_path = c"".as_ptr();
    }
    bytes
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

/// A policy; `None` for 0.
fn eviction_from(number: u32) -> Result<Option<Eviction>> {
    match number {
        0 => Ok(None),
        MMC_EVICTION_PREFIX => Ok(Some(Eviction::Prefix)),
        MMC_EVICTION_ADAPTIVE => Ok(Some(Eviction::Adaptive)),
        _ => Err(invalid!(
            "eviction {number}: must be MMC_EVICTION_PREFIX (1), MMC_EVICTION_ADAPTIVE (2), or 0 for the default"
        )),
    }
}
