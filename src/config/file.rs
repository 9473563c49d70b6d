//! The file of settings: `key = value` lines, and the table of what may stand on the left.
//!
//! The grammar is as small as the files in use need. A line is blank or `key = value`; `#` starts a comment at the
//! start of a line or after white space, so a value may hold one inside; white space around key and value does not
//! count. Lines end in LF or CRLF, the text is UTF-8 (comments need not be), a byte order mark is skipped. Nothing is
//! quoted, nothing continues on the next line. Of a key that comes twice the last line counts, and a note says so.
//!
//! Keys come in four kinds:
//!
//! - `mmc.NAME`: the library's own options. An unknown one is an error.
//! - `ock.mmc.NAME` keys of the multi-process service that mean something here (`DROP_IN`). Where an own option says
//!   the same thing, the own option wins, wherever in the file it stands.
//! - `ock.mmc.NAME` keys for those who attach to a pool (`CLIENTS`). Their values are checked, and a note lists them.
//! - `ock.mmc.NAME` keys that mean nothing on one host: addresses, RDMA, thread pools, TLS (`UNUSED`). Their values
//!   are checked for type and range, and one note lists them. Any other `ock.mmc.` key gets a note with its line:
//!   files hold more keys than any list.
//!
//! Every other key, and every value out of its limits, is an error with file, line and key. Sizes are rounded up to a
//! multiple of 4096 bytes, and a note says so: nobody writes `2.5GB` and means its last byte. The bytes of a token are
//! never repeated in a message.

use super::share::{MAX_WAIT_MS, parse_ids, parse_mode, parse_share};
use super::{Checked, Eviction, GRAIN_BYTES, MAX_NUMA_NODE, MAX_RANK, Memory, Note, Options};
use super::{is_host, parse_address, parse_bytes, parse_level, parse_number, parse_token, shown};
use crate::error::{Error, Result, invalid};
use crate::log::Level;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Files in use have a hundred lines; this stops at a device or a dump that was named by mistake.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The limit of the service that these keys come from.
const MAX_SERVICE_BYTES: u64 = 1 << 40;
/// `PATH_MAX` without its terminator is larger, but the service that these keys come from takes no more.
const MAX_PATH_BYTES: usize = 1023;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const TOKEN_KEY: &str = "mmc.http_token";

/// Sets one option from text. Answers with what became of the value where that is not what the text says.
type Setter = fn(&mut Options, &str) -> Checked<Option<String>>;
/// Checks a value that nobody reads.
type Check = fn(&str) -> Checked<()>;

/// The library's own options.
const OWN: &[(&str, Setter)] = &[
    ("mmc.dram_size", |options, text| {
        set_size(&mut options.dram_size, parse_bytes(text)?)
    }),
    ("mmc.rank", |options, text| {
        set(&mut options.rank, parse_number(text, 0, MAX_RANK))
    }),
    ("mmc.watermark_high", |options, text| {
        set(&mut options.watermark_high, parse_number(text, 1, 100))
    }),
    ("mmc.watermark_low", |options, text| {
        set(&mut options.watermark_low, parse_number(text, 1, 100))
    }),
    ("mmc.http_address", |options, text| {
        set(&mut options.http_address, parse_address(text))
    }),
    (TOKEN_KEY, |options, text| {
        set(&mut options.http_token, parse_token(text))
    }),
    ("mmc.log_level", |options, text| {
        set(&mut options.log_level, parse_level(text))
    }),
    ("mmc.huge_pages", |options, text| {
        set(&mut options.huge_pages, parse_flag(text))
    }),
    ("mmc.prefault", |options, text| {
        set(&mut options.prefault, parse_flag(text))
    }),
    ("mmc.memory", |options, text| {
        set(&mut options.memory, parse_memory(text))
    }),
    ("mmc.numa_node", |options, text| {
        set(&mut options.numa_node, parse_number(text, 0, MAX_NUMA_NODE))
    }),
    ("mmc.eviction", |options, text| {
        set(&mut options.eviction, parse_eviction(text))
    }),
    ("mmc.ssd_path", |options, text| {
        set(&mut options.ssd_path, parse_path(text))
    }),
    ("mmc.ssd_size", |options, text| {
        set_size(&mut options.ssd_size, parse_bytes(text)?)
    }),
    ("mmc.move_rate", |options, text| {
        set(&mut options.move_rate, parse_bytes(text))
    }),
    ("mmc.verify_dram", |options, text| {
        set(&mut options.verify_dram, parse_flag(text))
    }),
    ("mmc.state_path", |options, text| {
        set(&mut options.state_path, parse_path(text))
    }),
    ("mmc.state_wipe", |options, text| {
        set(&mut options.state_wipe, parse_flag(text))
    }),
    ("mmc.share", |options, text| set(&mut options.share, parse_share(text))),
    ("mmc.share_mode", |options, text| {
        set(&mut options.share_mode, parse_mode(text))
    }),
    ("mmc.share_users", |options, text| {
        set(&mut options.share_users, parse_ids(text))
    }),
    ("mmc.share_groups", |options, text| {
        set(&mut options.share_groups, parse_ids(text))
    }),
    ("mmc.share_wait_ms", |options, text| {
        set(
            &mut options.share_wait_ms,
            parse_number(text, 1, MAX_WAIT_MS).map(u64::from),
        )
    }),
];

/// Keys of the multi-process service that mean something here.
const DROP_IN: &[(&str, Setter)] = &[
    ("ock.mmc.local_service.dram.size", |options, text| {
        set_size(&mut options.dram_size, parse_service_bytes(text)?)
    }),
    ("ock.mmc.evict_threshold_high", |options, text| {
        set(&mut options.watermark_high, parse_number(text, 1, 100))
    }),
    ("ock.mmc.evict_threshold_low", |options, text| {
        set(&mut options.watermark_low, parse_number(text, 1, 100))
    }),
    ("ock.mmc.log_level", |options, text| {
        set(&mut options.log_level, parse_level(text))
    }),
    ("ock.mmc.meta_service.metrics_url", |options, text| {
        set(&mut options.http_address, parse_metrics_url(text))
    }),
];

/// Keys that say where the owner of a pool is, and how long to wait for it: for whoever attaches by the same file, as the Python drop-in does.
const CLIENTS: &[(&str, Check)] = &[
    ("ock.mmc.meta_service_url", check_url),
    ("ock.mmc.client.retry_milliseconds", |text| {
        parse_number(text, 0, 600_000).map(drop)
    }),
    ("ock.mmc.client.timeout.seconds", |text| {
        parse_number(text, 1, 600).map(drop)
    }),
];

/// Keys of the multi-process service that mean nothing in one process. HBM is always registered by the host.
const UNUSED: &[(&str, Check)] = &[
    ("ock.mmc.meta_service.config_store_url", check_url),
    ("ock.mmc.log_path", check_path),
    ("ock.mmc.local_service.world_size", |text| {
        parse_number(text, 1, 1024).map(drop)
    }),
    ("ock.mmc.local_service.protocol", check_protocol),
    ("ock.mmc.local_service.hbm.size", |text| {
        parse_service_bytes(text).map(drop)
    }),
    ("ock.mmc.local_service.max.dram.size", |text| {
        parse_service_bytes(text).map(drop)
    }),
    ("ock.mmc.local_service.max.hbm.size", |text| {
        parse_service_bytes(text).map(drop)
    }),
    ("ock.mmc.client.read_thread_pool.size", |text| {
        parse_number(text, 1, 64).map(drop)
    }),
    ("ock.mmc.client.write_thread_pool.size", |text| {
        parse_number(text, 1, 64).map(drop)
    }),
    ("ock.mmc.client.aggregate.io", |text| parse_flag(text).map(drop)),
    ("ock.mmc.client.aggregate.num", |text| {
        parse_number(text, 1, 131_072).map(drop)
    }),
    ("ock.mmc.ubs_io.enable", |text| parse_flag(text).map(drop)),
    ("ock.mmc.tls.enable", |text| parse_flag(text).map(drop)),
];

/// Every other key that starts like this is the path of a certificate, a key, a library.
const TLS_PREFIX: &str = "ock.mmc.tls.";
const SERVICE_PREFIX: &str = "ock.mmc.";

/// Reads and parses the file at `path`.
pub(super) fn read(path: &Path) -> Result<(Options, Vec<Note>)> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| Error::Io(format!("{}: can't be read: {error}", path.display()).into()))?;
    parse(&path.display().to_string(), &bytes)
}

/// Parses a file's content; `name` is what messages call the file.
pub(super) fn parse(name: &str, bytes: &[u8]) -> Result<(Options, Vec<Note>)> {
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(invalid!(
            "{name}: a file of settings must be at most {MAX_FILE_BYTES} bytes"
        ));
    }
    let mut settings = Settings {
        name,
        ..Settings::default()
    };
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if let Some((key, value)) = split_line(line).map_err(|reason| invalid!("{name}:{}: {reason}", index + 1))? {
            settings.apply(index + 1, key, value)?;
        }
    }
    settings.finish()
}

/// Key and value of a line; `None` when there is nothing but white space and comment.
fn split_line(line: &[u8]) -> Checked<Option<(&str, &str)>> {
    let comment = (0..line.len()).find(|&at| line[at] == b'#' && (at == 0 || line[at - 1].is_ascii_whitespace()));
    let line = line[..comment.unwrap_or(line.len())].trim_ascii();
    let line = str::from_utf8(line).map_err(|_| "must be UTF-8".to_string())?;
    if line.contains(|c: char| c.is_control() && c != '\t') {
        return Err("must not hold control characters".to_string());
    }
    if line.is_empty() {
        return Ok(None);
    }
    match line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
        Some((key, value)) if !key.is_empty() => Ok(Some((key, value))),
        // The first word only: what follows may be a token.
        _ => Err(format!(
            "{}: must be key = value",
            shown(line.split_whitespace().next().unwrap_or(line))
        )),
    }
}

/// What the lines so far have said.
#[derive(Default)]
struct Settings<'a> {
    name: &'a str,
    /// Set by keys of `OWN`.
    own: Options,
    /// Set by keys of `DROP_IN`.
    drop_in: Options,
    /// Keys of `CLIENTS` in the order of their first lines.
    clients: Vec<&'a str>,
    /// Keys of `UNUSED` in that order.
    unused: Vec<&'a str>,
    /// The last line of each key.
    lines: HashMap<&'a str, usize>,
    notes: Vec<Note>,
}

impl<'a> Settings<'a> {
    fn apply(&mut self, line: usize, key: &'a str, value: &str) -> Result<()> {
        let name = self.name;
        let repeated = self.lines.insert(key, line);
        let wrong = |reason| match key {
            TOKEN_KEY => invalid!("{name}:{line}: {key}: {reason}"),
            _ => invalid!("{name}:{line}: {key} = {}: {reason}", shown(value)),
        };
        if let Some(setter) = find(OWN, key) {
            let remark = setter(&mut self.own, value).map_err(wrong)?;
            self.note_remark(line, key, value, remark);
        } else if let Some(setter) = find(DROP_IN, key) {
            let remark = setter(&mut self.drop_in, value).map_err(wrong)?;
            self.note_remark(line, key, value, remark);
        } else if let Some(check) = find(CLIENTS, key) {
            check(value).map_err(wrong)?;
            if repeated.is_none() {
                self.clients.push(key);
            }
        } else if let Some(check) = find(UNUSED, key).or(key.starts_with(TLS_PREFIX).then_some(check_path as Check)) {
            check(value).map_err(wrong)?;
            if repeated.is_none() {
                self.unused.push(key);
            }
        } else if !key.starts_with(SERVICE_PREFIX) {
            return Err(invalid!("{name}:{line}: {}: unknown key", shown(key)));
        } else if repeated.is_none() {
            self.note(
                Level::Warn,
                format!("{name}:{line}: {}: unknown key, ignored", shown(key)),
            );
        }
        if let Some(previous) = repeated {
            let message = format!("{name}:{line}: {}: replaces the value of line {previous}", shown(key));
            self.note(Level::Warn, message);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(Options, Vec<Note>)> {
        self.check_watermarks()?;
        let lists = [
            (
                "of those who attach to a pool, not of a store",
                std::mem::take(&mut self.clients),
            ),
            (
                "without meaning in one process, ignored",
                std::mem::take(&mut self.unused),
            ),
        ];
        for (what, keys) in lists {
            if !keys.is_empty() {
                let keys: Vec<String> = keys.iter().map(|key| shown(key)).collect();
                self.note(Level::Info, format!("{}: {what}: {}", self.name, keys.join(", ")));
            }
        }
        Ok((self.own.or(self.drop_in), self.notes))
    }

    fn check_watermarks(&self) -> Result<()> {
        let pick = |own: Option<u32>, own_key, drop_in: Option<u32>, drop_in_key| match own {
            Some(percent) => Some((percent, own_key)),
            None => drop_in.map(|percent| (percent, drop_in_key)),
        };
        let (own, drop_in) = (&self.own, &self.drop_in);
        let low = pick(
            own.watermark_low,
            "mmc.watermark_low",
            drop_in.watermark_low,
            "ock.mmc.evict_threshold_low",
        );
        let high = pick(
            own.watermark_high,
            "mmc.watermark_high",
            drop_in.watermark_high,
            "ock.mmc.evict_threshold_high",
        );
        match (low, high) {
            (Some((low, low_key)), Some((high, high_key))) if low > high => Err(invalid!(
                "{}:{}: {low_key} = {low}: must not be above {high_key} = {high} of line {}",
                self.name,
                self.lines.get(low_key).copied().unwrap_or_default(),
                self.lines.get(high_key).copied().unwrap_or_default(),
            )),
            _ => Ok(()),
        }
    }

    fn note_remark(&mut self, line: usize, key: &str, value: &str, remark: Option<String>) {
        if let Some(remark) = remark {
            let message = format!("{}:{line}: {key} = {}: {remark}", self.name, shown(value));
            self.note(Level::Info, message);
        }
    }

    fn note(&mut self, level: Level, message: String) {
        self.notes.push(Note { level, message });
    }
}

fn find<T: Copy>(table: &[(&str, T)], key: &str) -> Option<T> {
    table.iter().find(|(name, _)| *name == key).map(|(_, entry)| *entry)
}

fn set<T>(option: &mut Option<T>, value: Checked<T>) -> Checked<Option<String>> {
    *option = Some(value?);
    Ok(None)
}

fn set_size(option: &mut Option<u64>, bytes: u64) -> Checked<Option<String>> {
    let rounded = bytes
        .checked_next_multiple_of(GRAIN_BYTES)
        .ok_or_else(|| format!("must be at most {} bytes", u64::MAX - (GRAIN_BYTES - 1)))?;
    *option = Some(rounded);
    Ok((rounded != bytes).then(|| format!("rounded up to {rounded} bytes, a multiple of {GRAIN_BYTES}")))
}

fn parse_service_bytes(text: &str) -> Checked<u64> {
    match parse_bytes(text)? {
        bytes if bytes <= MAX_SERVICE_BYTES => Ok(bytes),
        _ => Err("must be at most 1TB".to_string()),
    }
}

fn parse_flag(text: &str) -> Checked<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "on" | "yes" => Ok(true),
        "false" | "0" | "off" | "no" => Ok(false),
        _ => Err("must be true or false".to_string()),
    }
}

fn parse_memory(text: &str) -> Checked<Memory> {
    match text.to_ascii_lowercase().as_str() {
        "private" => Ok(Memory::Private),
        "memfd" => Ok(Memory::Memfd),
        _ => Err("must be private or memfd".to_string()),
    }
}

fn parse_eviction(text: &str) -> Checked<Eviction> {
    match text.to_ascii_lowercase().as_str() {
        "prefix" => Ok(Eviction::Prefix),
        "adaptive" => Ok(Eviction::Adaptive),
        _ => Err("must be prefix or adaptive".to_string()),
    }
}

/// The admin port's address from `http://host:port`. The scheme may be missing; a port for TLS is not silently replaced
/// by one without.
fn parse_metrics_url(text: &str) -> Checked<String> {
    let address = text
        .strip_prefix("http://")
        .map_or(text, |rest| rest.strip_suffix('/').unwrap_or(rest));
    match parse_address(address) {
        Ok(address) if !address.is_empty() || text.is_empty() => Ok(address),
        _ if text.starts_with("https://") => Err("must be http://host:port: the admin port has no TLS".to_string()),
        _ => Err("must be http://host:port, with a port of 0 to 65535".to_string()),
    }
}

fn check_url(text: &str) -> Checked<()> {
    let address = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("tcp6://"));
    match address.and_then(|address| address.rsplit_once(':')) {
        Some((host, port)) if is_host(host) && parse_number(port, 1, 65535).is_ok() => Ok(()),
        _ => Err("must be tcp://host:port, with a port of 1 to 65535".to_string()),
    }
}

fn parse_path(text: &str) -> Checked<PathBuf> {
    check_path(text).map(|()| PathBuf::from(text))
}

fn check_path(text: &str) -> Checked<()> {
    match text.len() {
        0..=MAX_PATH_BYTES => Ok(()),
        _ => Err(format!("must be a path of at most {MAX_PATH_BYTES} bytes")),
    }
}

fn check_protocol(text: &str) -> Checked<()> {
    const PROTOCOLS: [&str; 8] = [
        "host_rdma",
        "host_urma",
        "host_tcp",
        "host_shm",
        "device_rdma",
        "device_sdma",
        "device_urma",
        "device_uboe",
    ];
    match PROTOCOLS.contains(&text) {
        true => Ok(()),
        false => Err(format!("must be one of {}", PROTOCOLS.join(", "))),
    }
}

#[cfg(test)]
mod tests;
