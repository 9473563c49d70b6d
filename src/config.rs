//! Settings: what may be set, where a value comes from, and what holds when nobody says anything.
//!
//! One struct, [`Options`], has every setting as an `Option`; each source of settings fills one of its own. They are
//! laid over each other in a fixed order, the first that says something wins:
//!
//! 1. the caller (`mmc_config`),
//! 2. the environment: `MMC_CONFIG_PATH`, `MMC_HTTP_ADDRESS`, `MMC_LOG_LEVEL`,
//! 3. the `key = value` file that 1 or 2 names (its grammar and keys: `config/file.rs`),
//! 4. the defaults: 1 GiB of DRAM, rank 0, watermarks 90 and 80, no HTTP, not shared, huge pages asked for.
//!
//! Each source is checked by itself, whether or not another overrides it: a typing error in a file is found on the day
//! it is made, not on the day the override goes. What a source holds after its check needs none again; only the two
//! watermarks can still contradict each other across sources. A default never contradicts what was given: with a high
//! watermark alone, the low one is at least ten below it; with a low one above 90 alone, the high one is the same; of a
//! store that others attach to, the memory is a memfd.
//!
//! An empty variable is an unset one, but for `MMC_HTTP_ADDRESS`: there, as for the caller and in the file, the empty
//! text means "no admin port", so that `MMC_HTTP_ADDRESS= program` turns off what a file asks for. In the same way an
//! empty path from the caller means "no file", whatever the environment names.
//!
//! A text in the form of a file may be laid under a caller's options before they are resolved ([`Options::with_text`]), by a caller who
//! has the text from elsewhere, or wants to look at the settings first.
//!
//! Nothing here touches memory, sockets or the log: what a person should know comes back as [`Note`]s, because the
//! level of the log is itself a setting.

mod file;
pub(crate) mod share;

use crate::error::{Result, invalid};
use crate::log::Level;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

/// The environment variable that names the file.
const CONFIG_PATH_VARIABLE: &str = "MMC_CONFIG_PATH";
/// The environment variable that gives the admin port's address.
const HTTP_ADDRESS_VARIABLE: &str = "MMC_HTTP_ADDRESS";
/// The environment variable that gives the level of the log.
const LOG_LEVEL_VARIABLE: &str = "MMC_LOG_LEVEL";

const DEFAULT_DRAM_BYTES: u64 = 1 << 30;
const DEFAULT_WATERMARK_HIGH: u32 = 90;
const DEFAULT_WATERMARK_LOW: u32 = 80;
/// Percent between the watermarks when only the high one is given: without a distance, each put would wake eviction.
const WATERMARK_DISTANCE: u32 = 10;

/// A segment is handed out in units of this many bytes, so its size is a multiple of it.
const GRAIN_BYTES: u64 = 4096;
/// Ranks are 16 bits wide in addresses and listings.
const MAX_RANK: u32 = 65535;
/// The largest node number that a Linux kernel can be built for (`NODES_SHIFT` of 10).
const MAX_NUMA_NODE: u32 = 1023;
/// A token travels in the head of a request, which is at most a few KiB.
const MAX_TOKEN_BYTES: usize = 1024;
/// The host of an address without one: whoever wants to be reached from elsewhere has to say so.
const LOOPBACK: &str = "127.0.0.1";

/// A value read from text, or why it is wrong: the part of the sentence after "name = value: ".
type Checked<T> = std::result::Result<T, String>;

/// Every setting of a store; `None` is "unset".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Bytes of the DRAM segment that the store maps: a multiple of 4096; 0 for none.
    pub dram_size: Option<u64>,
    /// This process's rank, 0 to 65535.
    pub rank: Option<u32>,
    /// Percent of a segment in use at which background eviction starts, 1 to 100.
    pub watermark_high: Option<u32>,
    /// Percent of a segment in use at which background eviction stops, 1 to 100, at most `watermark_high`.
    pub watermark_low: Option<u32>,
    /// Where the admin port listens: `host:port`, `[IPv6]:port`, or `:port` or `port` on the loopback host; port 0 is
    /// any free one. Empty for no admin port.
    pub http_address: Option<String>,
    /// What a client of the admin port has to show as `Authorization: Bearer`: 1 to 1024 visible ASCII characters.
    pub http_token: Option<String>,
    /// How much the process's log says.
    pub log_level: Option<Level>,
    /// Whether to ask for huge pages.
    pub huge_pages: Option<bool>,
    /// Whether to touch all of the DRAM segment when it is mapped, not when it is used.
    pub prefault: Option<bool>,
    /// What the DRAM segment is made of.
    pub memory: Option<Memory>,
    /// The NUMA node that the DRAM segment should lie on, 0 to 1023.
    pub numa_node: Option<u32>,
    /// What goes first when there is no room.
    pub eviction: Option<Eviction>,
    /// The file of settings. Empty for none.
    pub config_path: Option<PathBuf>,
    /// The file of the first SSD segment. Empty for none.
    pub ssd_path: Option<PathBuf>,
    /// Bytes of that segment: a multiple of 4096.
    pub ssd_size: Option<u64>,
    /// Bytes a second that are moved between media in the background, at most; 0 for no limit.
    pub move_rate: Option<u64>,
    /// Whether gets compare what lies in memory with what was put.
    pub verify_dram: Option<bool>,
    /// The directory in which it is kept what is on SSD segments, so that it is found again. Empty for none.
    pub state_path: Option<PathBuf>,
    /// Whether a state that is of another segment, or damaged, is wiped and not an error.
    pub state_wipe: Option<bool>,
    /// Where other processes attach: `unix:/path/of/socket`. Empty for nowhere.
    pub share: Option<String>,
    /// Permission bits of the socket's file, 1 to 0777 octal.
    pub share_mode: Option<u32>,
    /// Numbers of users whose processes may attach, beside the owner's own: at most 64.
    pub share_users: Option<Vec<u32>>,
    /// Numbers of groups whose processes may attach: at most 64.
    pub share_groups: Option<Vec<u32>>,
    /// Milliseconds that a segment of an attached process that has died waits for one that comes in its place, 1 to 86400000.
    pub share_wait_ms: Option<u64>,
}

/// What the library maps a DRAM segment from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Memory {
    /// Private anonymous memory.
    #[default]
    Private,
    /// A sealed memfd, which can be given to another process.
    Memfd,
}

/// Which policy orders the copies of a segment by what goes first. `crate::evict` has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Eviction {
    /// Least recently used over batches, each chain eaten from its tail.
    Prefix,
    /// What is the least likely to be used again soon, by what has become of others like it.
    #[default]
    Adaptive,
}

/// The settings of a store, every question answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Bytes of the DRAM segment, a multiple of 4096; 0 for none.
    pub dram_size: u64,
    /// This process's rank, 0 to 65535.
    pub rank: u32,
    /// Percent of a segment in use at which background eviction starts, 1 to 100.
    pub watermark_high: u32,
    /// Percent of a segment in use at which background eviction stops, 1 to `watermark_high`.
    pub watermark_low: u32,
    /// `host:port` of the admin port; `None` for no admin port.
    pub http_address: Option<String>,
    /// The token that the admin port asks for.
    pub http_token: Option<String>,
    /// The log level to set; `None` leaves the process's level as it is.
    pub log_level: Option<Level>,
    /// Whether to ask for huge pages.
    pub huge_pages: bool,
    /// Whether to touch all of the DRAM segment when it is mapped.
    pub prefault: bool,
    /// What the DRAM segment is made of.
    pub memory: Memory,
    /// The NUMA node that the DRAM segment should lie on.
    pub numa_node: Option<u32>,
    /// What goes first when there is no room.
    pub eviction: Eviction,
    /// The file of the SSD segment; `None` for no such segment.
    pub ssd_path: Option<PathBuf>,
    /// Bytes of the SSD segment, a multiple of 4096.
    pub ssd_size: u64,
    /// Bytes a second that are moved in the background; 0 for no limit.
    pub move_rate: u64,
    /// Whether gets compare what lies in memory with what was put.
    pub verify_dram: bool,
    /// The directory of the states of SSD segments; `None` when they are not kept.
    pub state_path: Option<PathBuf>,
    /// Whether a state that is of another segment, or damaged, is wiped and not an error.
    pub state_wipe: bool,
    /// Where other processes attach, `unix:/path/of/socket`; `None` for nowhere.
    pub share: Option<String>,
    /// Permission bits of the socket's file.
    pub share_mode: u32,
    /// Users whose processes may attach, beside the owner's own.
    pub share_users: Vec<u32>,
    /// Groups whose processes may attach.
    pub share_groups: Vec<u32>,
    /// Milliseconds that a segment of an attached process that has died waits for one that comes in its place.
    pub share_wait_ms: u64,
}

/// Something about the settings that a person should know, to be logged once the level of the log is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// How much it matters.
    pub level: Level,
    /// One sentence that names the file and, where there is one, the line.
    pub message: String,
}

impl Options {
    /// Lays the caller's options over the environment, the file and the defaults.
    ///
    /// `environment` answers with the value of a variable. Blocks for reading the file.
    pub fn resolve(self, environment: &dyn Fn(&str) -> Option<String>) -> Result<(Config, Vec<Note>)> {
        let caller = self.checked()?;
        let variables = Options::from_environment(environment)?;
        let path = caller.config_path.as_ref().or(variables.config_path.as_ref());
        let path = path.filter(|path| !path.as_os_str().is_empty()).cloned();
        let (file, notes) = match &path {
            Some(path) => Options::from_file(path)?,
            None => (Options::default(), Vec::new()),
        };
        let name = path.map(|path| path.display().to_string());
        Ok((settled(caller, variables, file, name.as_deref())?, notes))
    }

    /// Lays the caller's options over a text in the form of a file: what [`Options::resolve`] makes of these is what it would make of the
    /// caller's with the text as their file. With them come the level of the log that this asks for, and what there is to tell about the
    /// text, which `name` is in messages.
    pub fn with_text(
        self,
        name: &str,
        text: &[u8],
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Options, Option<Level>, Vec<Note>)> {
        let caller = self.checked()?;
        let variables = Options::from_environment(environment)?;
        let (file, notes) = file::parse(name, text)?;
        let level = settled(caller.clone(), variables.clone(), file.clone(), Some(name))?.log_level;
        let under_caller = Options {
            // What the environment says goes before a file: it is left unset for that.
            http_address: file.http_address.filter(|_| variables.http_address.is_none()),
            log_level: file.log_level.filter(|_| variables.log_level.is_none()),
            // The text is the file, so there is no other.
            config_path: Some(PathBuf::new()),
            ..file
        };
        Ok((caller.or(under_caller), level, notes))
    }

    /// What the environment says.
    pub(crate) fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Result<Options> {
        let filled = |name: &str| environment(name).filter(|value| !value.is_empty());
        let mut options = Options {
            config_path: filled(CONFIG_PATH_VARIABLE).map(PathBuf::from),
            ..Options::default()
        };
        if let Some(text) = environment(HTTP_ADDRESS_VARIABLE) {
            options.http_address = Some(named(HTTP_ADDRESS_VARIABLE, &text, parse_address(&text))?);
        }
        if let Some(text) = filled(LOG_LEVEL_VARIABLE) {
            options.log_level = Some(named(LOG_LEVEL_VARIABLE, &text, parse_level(&text))?);
        }
        Ok(options)
    }

    /// What the file at `path` says, and what there is to tell about it.
    pub(crate) fn from_file(path: &Path) -> Result<(Options, Vec<Note>)> {
        file::read(path)
    }

    /// The caller's options when all of them are within their limits, the address in its full form.
    fn checked(mut self) -> Result<Options> {
        for (name, size) in [("dram_size", self.dram_size), ("ssd_size", self.ssd_size)] {
            if let Some(bytes) = size.filter(|bytes| bytes % GRAIN_BYTES != 0) {
                return Err(invalid!("{name} of {bytes} bytes: must be a multiple of {GRAIN_BYTES}"));
            }
        }
        let ranges = [
            ("rank", self.rank, 0, MAX_RANK),
            ("watermark_high", self.watermark_high, 1, 100),
            ("watermark_low", self.watermark_low, 1, 100),
            ("numa_node", self.numa_node, 0, MAX_NUMA_NODE),
        ];
        for (name, value, least, most) in ranges {
            if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
                return Err(invalid!("{name} {value}: must be {least} to {most}"));
            }
        }
        if let (Some(low), Some(high)) = (self.watermark_low, self.watermark_high)
            && low > high
        {
            return Err(invalid!("watermark_low {low}: must not be above watermark_high {high}"));
        }
        if let Some(text) = &self.http_address {
            self.http_address = Some(named("http_address", text, parse_address(text))?);
        }
        if let Some(token) = &self.http_token {
            // The token itself must not end up in a log.
            parse_token(token).map_err(|reason| invalid!("http_token of {} bytes: {reason}", token.len()))?;
        }
        if let Some(text) = &self.share {
            named("share", text, share::parse_share(text))?;
        }
        if let Some(mode) = self.share_mode {
            share::check_mode(mode).map_err(|reason| invalid!("share_mode {mode:04o} octal: {reason}"))?;
        }
        for (name, ids) in [("share_users", &self.share_users), ("share_groups", &self.share_groups)] {
            if let Some(ids) = ids {
                named(name, &share::text_of_ids(ids), share::check_ids(ids))?;
            }
        }
        let (wait, most) = (self.share_wait_ms, u64::from(share::MAX_WAIT_MS));
        if let Some(wait) = wait.filter(|wait| !(1..=most).contains(wait)) {
            return Err(invalid!("share_wait_ms {wait}: must be 1 to {most}"));
        }
        Ok(self)
    }

    /// These options where they are set, those of `lower` elsewhere.
    fn or(self, lower: Options) -> Options {
        Options {
            dram_size: self.dram_size.or(lower.dram_size),
            rank: self.rank.or(lower.rank),
            watermark_high: self.watermark_high.or(lower.watermark_high),
            watermark_low: self.watermark_low.or(lower.watermark_low),
            http_address: self.http_address.or(lower.http_address),
            http_token: self.http_token.or(lower.http_token),
            log_level: self.log_level.or(lower.log_level),
            huge_pages: self.huge_pages.or(lower.huge_pages),
            prefault: self.prefault.or(lower.prefault),
            memory: self.memory.or(lower.memory),
            numa_node: self.numa_node.or(lower.numa_node),
            eviction: self.eviction.or(lower.eviction),
            config_path: self.config_path.or(lower.config_path),
            ssd_path: self.ssd_path.or(lower.ssd_path),
            ssd_size: self.ssd_size.or(lower.ssd_size),
            move_rate: self.move_rate.or(lower.move_rate),
            verify_dram: self.verify_dram.or(lower.verify_dram),
            state_path: self.state_path.or(lower.state_path),
            state_wipe: self.state_wipe.or(lower.state_wipe),
            share: self.share.or(lower.share),
            share_mode: self.share_mode.or(lower.share_mode),
            share_users: self.share_users.or(lower.share_users),
            share_groups: self.share_groups.or(lower.share_groups),
            share_wait_ms: self.share_wait_ms.or(lower.share_wait_ms),
        }
    }

    fn with_defaults(self) -> Config {
        let default_high = self.watermark_low.unwrap_or(0).max(DEFAULT_WATERMARK_HIGH);
        let watermark_high = self.watermark_high.unwrap_or(default_high);
        let default_low = watermark_high
            .saturating_sub(WATERMARK_DISTANCE)
            .clamp(1, DEFAULT_WATERMARK_LOW);
        let share = self.share.filter(|address| !address.is_empty());
        // Nothing else can be given to those who attach.
        let default_memory = share.as_ref().map_or(Memory::default(), |_| Memory::Memfd);
        Config {
            dram_size: self.dram_size.unwrap_or(DEFAULT_DRAM_BYTES),
            rank: self.rank.unwrap_or(0),
            watermark_high,
            watermark_low: self.watermark_low.unwrap_or(default_low),
            http_address: self.http_address.filter(|address| !address.is_empty()),
            http_token: self.http_token,
            log_level: self.log_level,
            huge_pages: self.huge_pages.unwrap_or(true),
            prefault: self.prefault.unwrap_or(false),
            memory: self.memory.unwrap_or(default_memory),
            numa_node: self.numa_node,
            eviction: self.eviction.unwrap_or_default(),
            ssd_path: self.ssd_path.filter(|path| !path.as_os_str().is_empty()),
            ssd_size: self.ssd_size.unwrap_or(0),
            move_rate: self.move_rate.unwrap_or(0),
            verify_dram: self.verify_dram.unwrap_or(false),
            state_path: self.state_path.filter(|path| !path.as_os_str().is_empty()),
            state_wipe: self.state_wipe.unwrap_or(false),
            share,
            share_mode: self.share_mode.unwrap_or(share::DEFAULT_MODE),
            share_users: self.share_users.unwrap_or_default(),
            share_groups: self.share_groups.unwrap_or_default(),
            share_wait_ms: self.share_wait_ms.unwrap_or(share::DEFAULT_WAIT_MS),
        }
    }
}

/// The options of all sources, laid over each other and over the defaults; `name` is what messages call the file, where there is one.
fn settled(caller: Options, variables: Options, file: Options, name: Option<&str>) -> Result<Config> {
    let origins = [caller.watermark_low, caller.watermark_high].map(|given| match (name, given) {
        (Some(name), None) => name.to_string(),
        _ => "the caller".to_string(),
    });
    let config = caller.or(variables).or(file).with_defaults();
    let (low, high) = (config.watermark_low, config.watermark_high);
    if low > high {
        let [low_origin, high_origin] = origins;
        return Err(invalid!(
            "watermark_low {low} (from {low_origin}): must not be above watermark_high {high} (from {high_origin})"
        ));
    }
    match (&config.ssd_path, config.ssd_size) {
        (Some(path), 0) => Err(invalid!("ssd_path {}: needs an ssd_size", path.display())),
        (None, size) if size > 0 => Err(invalid!("ssd_size {size}: needs an ssd_path")),
        _ => Ok(config),
    }
}

/// Bytes of a size in text: `134217728`, `2048KB`, `200mb`, `2.5GB`, `1TB`, `512MiB`. Case does not matter, units are
/// powers of 1024, a fraction of a byte is cut off.
fn parse_bytes(text: &str) -> Checked<u64> {
    let text = text.trim();
    let unit_start = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_start);
    let unit_bits = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err("must be a number of bytes, KB, MB, GB or TB".to_string()),
    };
    let (whole, decimals) = match number.split_once('.') {
        Some((whole, decimals)) if unit_bits > 0 => (whole, decimals),
        Some(_) => return Err("must be whole bytes".to_string()),
        None => (number, "0"),
    };
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(decimals) {
        return Err("must be a number of bytes, KB, MB, GB or TB".to_string());
    }
    // 18 decimals keep the fraction below 2^60, so that it fits into 128 bits with any unit; what follows them is far
    // below a byte.
    let decimals = &decimals[..decimals.len().min(18)];
    let bytes = whole
        .parse::<u64>()
        .ok()
        .zip(decimals.parse::<u64>().ok())
        .and_then(|(whole, fraction)| {
            let fraction = (u128::from(fraction) << unit_bits) / 10u128.pow(decimals.len() as u32);
            u64::try_from((u128::from(whole) << unit_bits) + fraction).ok()
        });
    bytes.ok_or_else(|| format!("must be at most {} bytes", u64::MAX))
}

/// `host:port` of an address for the admin port; the empty text stays empty.
fn parse_address(text: &str) -> Checked<String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let (host, port) = match text.rsplit_once(':') {
        Some(("", port)) => (LOOPBACK, port),
        Some(both) => both,
        None => (LOOPBACK, text),
    };
    match parse_number(port, 0, u32::from(u16::MAX)) {
        Ok(port) if is_host(host) => Ok(format!("{host}:{port}")),
        _ => Err("must be host:port, [IPv6]:port or port, with a port of 0 to 65535".to_string()),
    }
}

/// Whether `host` is a name, an IPv4 address or an IPv6 address in brackets. Whether it exists shows when it is bound.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        }
    }
}

fn parse_token(text: &str) -> Checked<String> {
    // An empty token is refused: it is more likely a variable that expanded to nothing than a wish for an open port.
    if text.is_empty() || text.len() > MAX_TOKEN_BYTES || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "must be 1 to {MAX_TOKEN_BYTES} visible ASCII characters; leave it out for no token"
        ));
    }
    Ok(text.to_string())
}

fn parse_level(text: &str) -> Checked<Level> {
    Level::parse(text).ok_or_else(|| "must be off, error, warn, info, debug or trace".to_string())
}

fn parse_number(text: &str, least: u32, most: u32) -> Checked<u32> {
    // `parse` alone would take a plus sign.
    let number = text
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse::<u32>().ok())
        .flatten();
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("must be {least} to {most}"))
}

/// The value, or the error of the setting `name` that was given as `text`.
pub(crate) fn named<T>(name: &str, text: &str, checked: Checked<T>) -> Result<T> {
    checked.map_err(|reason| invalid!("{name} = {}: {reason}", shown(text)))
}

/// `text` as it may appear in a message: on one line, and not a megabyte of it.
fn shown(text: &str) -> String {
    const MAX_CHARACTERS: usize = 80;
    let mut shown: String = text.chars().take(MAX_CHARACTERS).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_CHARACTERS).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests;
