//! Settings: what may be set, where a value comes from, and what holds when nobody says anything.
//!
//! One struct, [`Options`], has every setting as an `Option`; each source of settings fills one of its own. They are
//! laid over each other in a fixed order, the first that says something wins:
//!
//! 1. the caller (`mmc_config`),
//! 2. the environment: `MMC_CONFIG_PATH`, `MMC_HTTP_ADDRESS`, `MMC_LOG_LEVEL`,
//! 3. the `key = value` file that 1 or 2 names (its grammar and keys: `config/file.rs`),
//! 4. the defaults: 1 GiB of DRAM, rank 0, watermarks 90 and 80, no HTTP, huge pages asked for.
//!
//! Each source is checked by itself, whether or not another overrides it: a typing error in a file is found on the day
//! it is made, not on the day the override goes. What a source holds after its check needs none again; only the two
//! watermarks can still contradict each other across sources. A default never contradicts what was given: with a high
//! watermark alone, the low one is at least ten below it; with a low one above 90 alone, the high one is the same.
//!
//! An empty variable is an unset one, but for `MMC_HTTP_ADDRESS`: there, as for the caller and in the file, the empty
//! text means "no admin port", so that `MMC_HTTP_ADDRESS= program` turns off what a file asks for. In the same way an
//! empty path from the caller means "no file", whatever the environment names.
//!
//! Nothing here touches memory, sockets or the log: what a person should know comes back as [`Note`]s, because the
//! level of the log is itself a setting.

mod file;

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
const DRAM_GRAIN_BYTES: u64 = 4096;
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
    /// The file of settings. Empty for none.
    pub config_path: Option<PathBuf>,
}

/// What the library maps a DRAM segment from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Memory {
    /// Private anonymous memory.
    #[default]
    Private,
    /// A sealed memfd, which can be shared with another process later.
    Memfd,
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
        let origins = [caller.watermark_low, caller.watermark_high].map(|given| match (&path, given) {
            (Some(path), None) => path.display().to_string(),
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
        Ok((config, notes))
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
        if let Some(bytes) = self.dram_size.filter(|bytes| bytes % DRAM_GRAIN_BYTES != 0) {
            return Err(invalid!(
                "dram_size of {bytes} bytes: must be a multiple of {DRAM_GRAIN_BYTES}"
            ));
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
            config_path: self.config_path.or(lower.config_path),
        }
    }

    fn with_defaults(self) -> Config {
        let default_high = self.watermark_low.unwrap_or(0).max(DEFAULT_WATERMARK_HIGH);
        let watermark_high = self.watermark_high.unwrap_or(default_high);
        let default_low = watermark_high
            .saturating_sub(WATERMARK_DISTANCE)
            .clamp(1, DEFAULT_WATERMARK_LOW);
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
            memory: self.memory.unwrap_or_default(),
            numa_node: self.numa_node,
        }
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
fn named<T>(name: &str, text: &str, checked: Checked<T>) -> Result<T> {
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
mod tests {
    use super::*;
    use crate::error::Error;

    /// A file of settings that goes away with its test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str, content: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("mmc-config-{}-{test}.conf", std::process::id()));
            std::fs::write(&path, content).expect("the temporary directory is writable");
            Scratch(path)
        }

        fn text(&self) -> String {
            self.0.display().to_string()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn nothing(_: &str) -> Option<String> {
        None
    }

    fn variables(values: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        move |name| {
            values
                .iter()
                .find(|(each, _)| *each == name)
                .map(|(_, value)| value.to_string())
        }
    }

    fn resolved(options: Options) -> Config {
        options.resolve(&nothing).expect("the options are valid").0
    }

    fn sentence<T: std::fmt::Debug>(result: Result<T>) -> String {
        match result {
            Err(Error::InvalidParam(sentence)) => sentence.into_owned(),
            other => panic!("not an InvalidParam: {other:?}"),
        }
    }

    #[test]
    fn nothing_given_means_the_defaults() {
        let (config, notes) = Options::default().resolve(&nothing).expect("nothing can be wrong");
        let expected = Config {
            dram_size: 1 << 30,
            rank: 0,
            watermark_high: 90,
            watermark_low: 80,
            http_address: None,
            http_token: None,
            log_level: None,
            huge_pages: true,
            prefault: false,
            memory: Memory::Private,
            numa_node: None,
        };
        assert_eq!(config, expected);
        assert_eq!(notes, []);
    }

    /// Sets one option as a caller would.
    type Give = fn(&mut Options);

    /// One setting and its value in each source that can give it.
    struct Layers {
        name: &'static str,
        caller: (Give, &'static str),
        variable: Option<(&'static str, &'static str, &'static str)>,
        file: (&'static str, &'static str),
        default: &'static str,
        read: fn(&Config) -> String,
    }

    const LAYERS: &[Layers] = &[
        Layers {
            name: "dram_size",
            caller: (|options| options.dram_size = Some(8192), "8192"),
            variable: None,
            file: ("ock.mmc.local_service.dram.size = 16KB", "16384"),
            default: "1073741824",
            read: |config| config.dram_size.to_string(),
        },
        Layers {
            name: "dram_size of nothing",
            caller: (|options| options.dram_size = Some(0), "0"),
            variable: None,
            file: ("mmc.dram_size = 16KB", "16384"),
            default: "1073741824",
            read: |config| config.dram_size.to_string(),
        },
        Layers {
            name: "rank",
            caller: (|options| options.rank = Some(0), "0"),
            variable: None,
            file: ("mmc.rank = 7", "7"),
            default: "0",
            read: |config| config.rank.to_string(),
        },
        Layers {
            name: "watermark_high",
            caller: (|options| options.watermark_high = Some(99), "99"),
            variable: None,
            file: ("ock.mmc.evict_threshold_high = 95", "95"),
            default: "90",
            read: |config| config.watermark_high.to_string(),
        },
        Layers {
            name: "watermark_low",
            caller: (|options| options.watermark_low = Some(10), "10"),
            variable: None,
            file: ("mmc.watermark_low = 20", "20"),
            default: "80",
            read: |config| config.watermark_low.to_string(),
        },
        Layers {
            name: "http_address",
            caller: (
                |options| options.http_address = Some("caller:1".into()),
                "Some(\"caller:1\")",
            ),
            variable: Some(("MMC_HTTP_ADDRESS", "variable:2", "Some(\"variable:2\")")),
            file: ("ock.mmc.meta_service.metrics_url = http://file:3", "Some(\"file:3\")"),
            default: "None",
            read: |config| format!("{:?}", config.http_address),
        },
        Layers {
            name: "http_address turned off",
            caller: (|options| options.http_address = Some(String::new()), "None"),
            variable: Some(("MMC_HTTP_ADDRESS", "", "None")),
            file: ("mmc.http_address = 9", "Some(\"127.0.0.1:9\")"),
            default: "None",
            read: |config| format!("{:?}", config.http_address),
        },
        Layers {
            name: "http_token",
            caller: (|options| options.http_token = Some("caller".into()), "Some(\"caller\")"),
            variable: None,
            file: ("mmc.http_token = file", "Some(\"file\")"),
            default: "None",
            read: |config| format!("{:?}", config.http_token),
        },
        Layers {
            name: "log_level",
            caller: (|options| options.log_level = Some(Level::Off), "Some(Off)"),
            variable: Some(("MMC_LOG_LEVEL", "trace", "Some(Trace)")),
            file: ("mmc.log_level = error", "Some(Error)"),
            default: "None",
            read: |config| format!("{:?}", config.log_level),
        },
        Layers {
            name: "huge_pages",
            caller: (|options| options.huge_pages = Some(true), "true"),
            variable: None,
            file: ("mmc.huge_pages = off", "false"),
            default: "true",
            read: |config| config.huge_pages.to_string(),
        },
        Layers {
            name: "prefault",
            caller: (|options| options.prefault = Some(false), "false"),
            variable: None,
            file: ("mmc.prefault = yes", "true"),
            default: "false",
            read: |config| config.prefault.to_string(),
        },
        Layers {
            name: "memory",
            caller: (|options| options.memory = Some(Memory::Private), "Private"),
            variable: None,
            file: ("mmc.memory = memfd", "Memfd"),
            default: "Private",
            read: |config| format!("{:?}", config.memory),
        },
        Layers {
            name: "numa_node",
            caller: (|options| options.numa_node = Some(0), "Some(0)"),
            variable: None,
            file: ("mmc.numa_node = 1", "Some(1)"),
            default: "None",
            read: |config| format!("{:?}", config.numa_node),
        },
    ];

    #[test]
    fn the_caller_wins_over_the_environment_over_the_file_over_the_default() {
        let scratch = Scratch::new("order", "");
        for layers in LAYERS {
            // Each of the eight sets of sources that can speak.
            for present in 0..8 {
                let [by_caller, by_variable, by_file] = [1, 2, 4].map(|bit| present & bit != 0);
                let mut options = Options {
                    config_path: Some(scratch.0.clone()),
                    ..Options::default()
                };
                let mut expected = layers.default;
                std::fs::write(&scratch.0, if by_file { layers.file.0 } else { "# silent" }).expect("written before");
                if by_file {
                    expected = layers.file.1;
                }
                let mut given = Vec::new();
                if let Some((name, value, read)) = layers.variable.filter(|_| by_variable) {
                    given.push((name, value));
                    expected = read;
                }
                if by_caller {
                    (layers.caller.0)(&mut options);
                    expected = layers.caller.1;
                }
                let (config, notes) = options.resolve(&variables(&given)).expect(layers.name);
                let context = format!(
                    "{} (caller {by_caller}, variable {by_variable}, file {by_file})",
                    layers.name
                );
                assert_eq!((layers.read)(&config), expected, "{context}");
                assert_eq!(notes, [], "{context}");
            }
        }
    }

    #[test]
    fn the_file_of_the_caller_is_read_instead_of_that_of_the_environment() {
        let (mine, theirs) = (
            Scratch::new("mine", "mmc.rank = 1"),
            Scratch::new("theirs", "mmc.rank = 2"),
        );
        let cases: [(Option<&str>, Option<&str>, u32); 7] = [
            (None, None, 0),
            (None, Some(""), 0),
            (None, Some(&theirs.text()), 2),
            (Some(&mine.text()), None, 1),
            (Some(&mine.text()), Some(&theirs.text()), 1),
            (Some(&mine.text()), Some("/nowhere/at/all"), 1),
            (Some(""), Some(&theirs.text()), 0),
        ];
        for (caller, variable, rank) in cases {
            let options = Options {
                config_path: caller.map(PathBuf::from),
                ..Options::default()
            };
            let environment = |name: &str| variable.filter(|_| name == "MMC_CONFIG_PATH").map(str::to_string);
            let (config, _) = options.resolve(&environment).expect("both files are fine");
            assert_eq!(config.rank, rank, "caller {caller:?}, variable {variable:?}");
        }
    }

    #[test]
    fn a_file_that_is_missing_is_an_error_with_path_and_reason() {
        let options = Options {
            config_path: Some("/nowhere/mmc.conf".into()),
            ..Options::default()
        };
        match options.resolve(&nothing) {
            Err(Error::Io(sentence)) => {
                assert!(
                    sentence.starts_with("/nowhere/mmc.conf: can't be read: No such file"),
                    "{sentence}"
                );
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn notes_of_the_file_reach_the_caller() {
        let scratch = Scratch::new("notes", "ock.mmc.novel = 1\n");
        let options = Options {
            config_path: Some(scratch.0.clone()),
            ..Options::default()
        };
        let (_, notes) = options.resolve(&nothing).expect("an unknown service key is no error");
        let message = format!("{}:1: ock.mmc.novel: unknown key, ignored", scratch.text());
        assert_eq!(
            notes,
            [Note {
                level: Level::Warn,
                message
            }]
        );
    }

    #[test]
    fn a_bad_variable_is_named_even_when_the_caller_overrides_it() {
        let cases = [
            (
                "MMC_HTTP_ADDRESS",
                "localhost",
                "MMC_HTTP_ADDRESS = localhost: must be host:port",
            ),
            (
                "MMC_HTTP_ADDRESS",
                "::1:80",
                "MMC_HTTP_ADDRESS = ::1:80: must be host:port, [IPv6]:port",
            ),
            (
                "MMC_LOG_LEVEL",
                "chatty",
                "MMC_LOG_LEVEL = chatty: must be off, error, warn",
            ),
            ("MMC_LOG_LEVEL", "in\nfo", "MMC_LOG_LEVEL = in\\nfo: must be"),
        ];
        for (name, value, expected) in cases {
            let caller = Options {
                http_address: Some("127.0.0.1:1".into()),
                log_level: Some(Level::Info),
                ..Options::default()
            };
            for options in [Options::default(), caller] {
                let sentence = sentence(options.resolve(&variables(&[(name, value)])));
                assert!(sentence.starts_with(expected), "{sentence}");
            }
        }
    }

    #[test]
    fn an_empty_variable_is_an_unset_one_but_for_the_address() {
        let scratch = Scratch::new("empty", "mmc.log_level = debug\nmmc.http_address = :8000\n");
        let environment = variables(&[("MMC_CONFIG_PATH", ""), ("MMC_LOG_LEVEL", ""), ("MMC_HTTP_ADDRESS", "")]);
        let options = Options {
            config_path: Some(scratch.0.clone()),
            ..Options::default()
        };
        let (config, _) = options.resolve(&environment).expect("empty variables are fine");
        assert_eq!((config.log_level, config.http_address), (Some(Level::Debug), None));
    }

    #[test]
    fn a_value_of_the_caller_beyond_its_limit_is_an_error() {
        let cases: [(Give, &str); 14] = [
            (
                |options| options.dram_size = Some(1),
                "dram_size of 1 bytes: must be a multiple of 4096",
            ),
            (
                |options| options.dram_size = Some(u64::MAX),
                "dram_size of 18446744073709551615 bytes: must be a multiple",
            ),
            (|options| options.rank = Some(65536), "rank 65536: must be 0 to 65535"),
            (
                |options| options.watermark_high = Some(0),
                "watermark_high 0: must be 1 to 100",
            ),
            (
                |options| options.watermark_high = Some(101),
                "watermark_high 101: must be 1 to 100",
            ),
            (
                |options| options.watermark_low = Some(0),
                "watermark_low 0: must be 1 to 100",
            ),
            (
                |options| options.watermark_low = Some(101),
                "watermark_low 101: must be 1 to 100",
            ),
            (
                |options| (options.watermark_low, options.watermark_high) = (Some(51), Some(50)),
                "watermark_low 51: must not be above watermark_high 50",
            ),
            (
                |options| options.numa_node = Some(1024),
                "numa_node 1024: must be 0 to 1023",
            ),
            (
                |options| options.http_address = Some("localhost".into()),
                "http_address = localhost: must be host:port",
            ),
            (
                |options| options.http_address = Some("a\nb:1".into()),
                "http_address = a\\nb:1: must be host:port",
            ),
            (
                |options| options.http_token = Some(String::new()),
                "http_token of 0 bytes: must be 1 to 1024 visible",
            ),
            (
                |options| options.http_token = Some("se cret".into()),
                "http_token of 7 bytes: must be 1 to 1024 visible",
            ),
            (
                |options| options.http_token = Some("x".repeat(1025)),
                "http_token of 1025 bytes: must be 1 to 1024",
            ),
        ];
        for (give, expected) in cases {
            let mut options = Options::default();
            give(&mut options);
            let sentence = sentence(options.resolve(&nothing));
            assert!(sentence.starts_with(expected), "{sentence}");
        }
    }

    #[test]
    fn values_of_the_caller_at_their_limits_are_taken() {
        let options = Options {
            dram_size: Some(u64::MAX - 4095),
            rank: Some(65535),
            watermark_high: Some(100),
            watermark_low: Some(100),
            http_token: Some("~".repeat(1024)),
            numa_node: Some(1023),
            ..Options::default()
        };
        let config = resolved(options);
        assert_eq!(
            (config.dram_size, config.rank, config.numa_node),
            (u64::MAX - 4095, 65535, Some(1023))
        );
        assert_eq!((config.watermark_low, config.watermark_high), (100, 100));
    }

    #[test]
    fn one_watermark_alone_is_never_contradicted_by_the_default_of_the_other() {
        let cases = [
            (None, None, (80, 90)),
            (None, Some(100), (80, 100)),
            (None, Some(85), (75, 85)),
            (None, Some(50), (40, 50)),
            (None, Some(10), (1, 10)),
            (None, Some(1), (1, 1)),
            (Some(1), None, (1, 90)),
            (Some(90), None, (90, 90)),
            (Some(95), None, (95, 95)),
        ];
        for (watermark_low, watermark_high, expected) in cases {
            let config = resolved(Options {
                watermark_low,
                watermark_high,
                ..Options::default()
            });
            assert_eq!((config.watermark_low, config.watermark_high), expected);
        }
    }

    #[test]
    fn watermarks_of_two_sources_that_contradict_each_other_name_both() {
        let cases: [(&str, Give, &str); 2] = [
            (
                "mmc.watermark_low = 60",
                |options| options.watermark_high = Some(50),
                "watermark_low 60 (from FILE): must not be above watermark_high 50 (from the caller)",
            ),
            (
                "mmc.watermark_high = 60",
                |options| options.watermark_low = Some(70),
                "watermark_low 70 (from the caller): must not be above watermark_high 60 (from FILE)",
            ),
        ];
        let scratch = Scratch::new("watermarks", "");
        for (line, give, expected) in cases {
            std::fs::write(&scratch.0, line).expect("written before");
            let mut options = Options {
                config_path: Some(scratch.0.clone()),
                ..Options::default()
            };
            give(&mut options);
            assert_eq!(
                sentence(options.resolve(&nothing)),
                expected.replace("FILE", &scratch.text())
            );
        }
    }

    #[test]
    fn addresses_come_out_as_host_and_port() {
        let cases = [
            ("", Some("")),
            ("127.0.0.1:8000", Some("127.0.0.1:8000")),
            ("0.0.0.0:0", Some("0.0.0.0:0")),
            ("localhost:65535", Some("localhost:65535")),
            ("my_host-1.example.org:80", Some("my_host-1.example.org:80")),
            ("[::1]:0", Some("[::1]:0")),
            ("[2001:db8::10]:8000", Some("[2001:db8::10]:8000")),
            (":8000", Some("127.0.0.1:8000")),
            ("8000", Some("127.0.0.1:8000")),
            (":0", Some("127.0.0.1:0")),
            (":", None),
            ("localhost", None),
            ("localhost:", None),
            ("localhost:65536", None),
            ("localhost:-1", None),
            ("localhost:+1", None),
            ("localhost:http", None),
            ("65536", None),
            ("127.0.0.1", None),
            ("::1", None),
            ("::1:8000", None),
            ("[::1]", None),
            ("[::1]8000", None),
            ("[::1:8000", None),
            ("::1]:8000", None),
            ("[127.0.0.1]:8000", None),
            ("[]:8000", None),
            ("http://localhost:8000", None),
            ("localhost:8000/", None),
            ("local host:8000", None),
            (" localhost:8000", None),
            ("user@localhost:8000", None),
            ("höst:8000", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_address(text).ok().as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_read_in_every_documented_form() {
        let cases = [
            ("0", Some(0)),
            ("134217728", Some(134_217_728)),
            ("1b", Some(1)),
            ("2048KB", Some(2 << 20)),
            ("200mb", Some(200 << 20)),
            ("2.5GB", Some(5 << 29)),
            ("1TB", Some(1 << 40)),
            ("512MiB", Some(512 << 20)),
            ("1kIb", Some(1024)),
            ("4k", Some(4096)),
            ("3g", Some(3 << 30)),
            (" 1 GB ", Some(1 << 30)),
            ("1.0KB", Some(1024)),
            ("0.5KB", Some(512)),
            ("0.1KB", Some(102)),
            ("0.999999999999999999TB", Some((1 << 40) - 1)),
            ("0.99999999999999999999999TB", Some((1 << 40) - 1)),
            ("0.500000000000000000000000KB", Some(512)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("16777215TB", Some(u64::MAX - ((1 << 40) - 1))),
            ("16777216TB", None),
            ("99999999999999999999999999999999999999999999GB", None),
            ("", None),
            (" ", None),
            ("GB", None),
            (".5GB", None),
            ("5.GB", None),
            (".", None),
            ("1.5.5GB", None),
            ("2.5", None),
            ("2.0b", None),
            ("-1", None),
            ("+1", None),
            ("1e9", None),
            ("0x10", None),
            ("1_000", None),
            ("1,5GB", None),
            ("1XB", None),
            ("1GBB", None),
            ("1 G B", None),
            ("٣GB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_bytes(text).ok(), expected, "{text:?}");
        }
        assert_eq!(
            parse_bytes("1XB").unwrap_err(),
            "must be a number of bytes, KB, MB, GB or TB"
        );
        assert_eq!(
            parse_bytes("16777216TB").unwrap_err(),
            "must be at most 18446744073709551615 bytes"
        );
    }

    #[test]
    fn a_long_value_is_cut_in_messages() {
        let sentence = sentence(named(
            "size",
            &"x".repeat(1 << 20),
            Err::<u64, _>("must be less".into()),
        ));
        assert!(sentence.starts_with("size = xxx") && sentence.len() < 200, "{sentence}");
    }
}
