//! The file of settings: `key = value` lines, and the table of what may stand on the left.
//!
//! The grammar is as small as the files in use need. A line is blank or `key = value`; `#` starts a comment at the
//! start of a line or after white space, so a value may hold one inside; white space around key and value does not
//! count. Lines end in LF or CRLF, the text is UTF-8 (comments need not be), a byte order mark is skipped. Nothing is
//! quoted, nothing continues on the next line. Of a key that comes twice the last line counts, and a note says so.
//!
//! Keys come in three kinds:
//!
//! - `mmc.NAME`: the library's own options. An unknown one is an error.
//! - `ock.mmc.NAME` keys of the multi-process service that mean something here (`DROP_IN`). Where an own option says
//!   the same thing, the own option wins, wherever in the file it stands.
//! - `ock.mmc.NAME` keys that mean nothing in one process: addresses, RDMA, thread pools, TLS (`UNUSED`). Their values
//!   are checked for type and range, and one note lists them. Any other `ock.mmc.` key gets a note with its line:
//!   files hold more keys than any list.
//!
//! Every other key, and every value out of its limits, is an error with file, line and key. Sizes are rounded up to a
//! multiple of 4096 bytes, and a note says so: nobody writes `2.5GB` and means its last byte. The bytes of a token are
//! never repeated in a message.

use super::{Checked, DRAM_GRAIN_BYTES, MAX_NUMA_NODE, MAX_RANK, Memory, Note, Options};
use super::{is_host, parse_address, parse_bytes, parse_level, parse_number, parse_token, shown};
use crate::error::{Error, Result, invalid};
use crate::log::Level;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

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
        set_dram_size(options, parse_bytes(text)?)
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
];

/// Keys of the multi-process service that mean something here.
const DROP_IN: &[(&str, Setter)] = &[
    ("ock.mmc.local_service.dram.size", |options, text| {
        set_dram_size(options, parse_service_bytes(text)?)
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

/// Keys of the multi-process service that mean nothing in one process. HBM is always registered by the host.
const UNUSED: &[(&str, Check)] = &[
    ("ock.mmc.meta_service_url", check_url),
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
    ("ock.mmc.client.retry_milliseconds", |text| {
        parse_number(text, 0, 600_000).map(drop)
    }),
    ("ock.mmc.client.timeout.seconds", |text| {
        parse_number(text, 1, 600).map(drop)
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
    let name = path.display().to_string();
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(invalid!(
            "{name}: a file of settings must be at most {MAX_FILE_BYTES} bytes"
        ));
    }
    parse(&name, &bytes)
}

/// Parses a file's content; `name` is what messages call the file.
fn parse(name: &str, bytes: &[u8]) -> Result<(Options, Vec<Note>)> {
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
    /// Keys of `UNUSED` in the order of their first lines.
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
        if !self.unused.is_empty() {
            let keys: Vec<String> = self.unused.iter().map(|key| shown(key)).collect();
            let message = format!(
                "{}: without meaning in one process, ignored: {}",
                self.name,
                keys.join(", ")
            );
            self.note(Level::Info, message);
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

fn set_dram_size(options: &mut Options, bytes: u64) -> Checked<Option<String>> {
    let rounded = bytes
        .checked_next_multiple_of(DRAM_GRAIN_BYTES)
        .ok_or_else(|| format!("must be at most {} bytes", u64::MAX - (DRAM_GRAIN_BYTES - 1)))?;
    options.dram_size = Some(rounded);
    Ok((rounded != bytes).then(|| format!("rounded up to {rounded} bytes, a multiple of {DRAM_GRAIN_BYTES}")))
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
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Options, Vec<Note>) {
        parse("x.conf", text.as_bytes()).expect(text)
    }

    fn options(text: &str) -> Options {
        parsed(text).0
    }

    fn messages(text: &str) -> Vec<(Level, String)> {
        parsed(text)
            .1
            .into_iter()
            .map(|note| (note.level, note.message))
            .collect()
    }

    fn sentence(content: impl AsRef<[u8]>) -> String {
        match parse("x.conf", content.as_ref()) {
            Err(Error::InvalidParam(sentence)) => sentence.into_owned(),
            other => panic!("not an InvalidParam: {other:?}"),
        }
    }

    /// What the parser makes of the rank of a text.
    fn rank(content: impl AsRef<[u8]>) -> Option<u32> {
        parse("x.conf", content.as_ref()).expect("the content is valid").0.rank
    }

    #[test]
    fn lines_are_read_around_comments_blanks_and_line_ends() {
        let cases: [(&[u8], Option<u32>); 20] = [
            (b"", None),
            (b"\n\n", None),
            (b"\xef\xbb\xbf", None),
            (b"# mmc.rank = 5", None),
            (b"   # mmc.rank = 5", None),
            (b"mmc.rank = 5", Some(5)),
            (b"mmc.rank=5", Some(5)),
            (b"\t mmc.rank\t=\t5 \t", Some(5)),
            (b"mmc.rank = 5\n", Some(5)),
            (b"mmc.rank = 5\r\n", Some(5)),
            (b"\r\n\r\nmmc.rank = 5\r\n\r\n", Some(5)),
            (b"\xef\xbb\xbfmmc.rank = 5\n", Some(5)),
            (b"\xef\xbb\xbf# comment\nmmc.rank = 5\n", Some(5)),
            (b"mmc.rank = 5 # of 8", Some(5)),
            (b"mmc.rank = 5\t#6", Some(5)),
            (b"# = = =\nmmc.rank = 5", Some(5)),
            (b"mmc.rank = 007", Some(7)),
            (b"# \xce\xde\xd0\xa7 \0\nmmc.rank = 5 # \xff\n", Some(5)),
            ("# 配置\nmmc.rank = 5 # 号\n".as_bytes(), Some(5)),
            (b"mmc.rank = 5\nmmc.rank = 6\n", Some(6)),
        ];
        for (content, expected) in cases {
            assert_eq!(rank(content), expected, "{:?}", String::from_utf8_lossy(content));
        }
    }

    #[test]
    fn a_hash_inside_a_value_belongs_to_it() {
        let cases = [("a#b", "a#b"), ("a#b #c", "a#b"), ("a=b", "a=b"), ("a## ##", "a##")];
        for (text, expected) in cases {
            assert_eq!(
                options(&format!("mmc.http_token = {text}")).http_token.as_deref(),
                Some(expected)
            );
        }
    }

    #[test]
    fn a_line_that_is_none_is_an_error_with_its_number() {
        let cases: [(&[u8], &str); 9] = [
            (b"mmc.rank", "x.conf:1: mmc.rank: must be key = value"),
            (b"\n\nmmc.rank 5", "x.conf:3: mmc.rank: must be key = value"),
            (b"# one\r\n[mmc]\r\n", "x.conf:2: [mmc]: must be key = value"),
            (
                b"mmc.http_token: secret",
                "x.conf:1: mmc.http_token:: must be key = value",
            ),
            (b"= 5", "x.conf:1: =: must be key = value"),
            (b"mmc.rank = 5\0", "x.conf:1: must not hold control characters"),
            (
                b"mmc.rank = 1\rmmc.rank = 2",
                "x.conf:1: must not hold control characters",
            ),
            (b"mmc.rank = \xff", "x.conf:1: must be UTF-8"),
            (b"\xff\xfem\0m\0c\0", "x.conf:1: must be UTF-8"),
        ];
        for (content, expected) in cases {
            assert_eq!(sentence(content), expected);
        }
    }

    #[test]
    fn every_key_with_a_meaning_sets_its_option() {
        let cases: &[(&str, Options)] = &[
            (
                "mmc.dram_size = 2MB",
                Options {
                    dram_size: Some(2 << 20),
                    ..Options::default()
                },
            ),
            (
                "mmc.dram_size = 0",
                Options {
                    dram_size: Some(0),
                    ..Options::default()
                },
            ),
            (
                "mmc.dram_size = 4TB",
                Options {
                    dram_size: Some(4 << 40),
                    ..Options::default()
                },
            ),
            (
                "mmc.rank = 65535",
                Options {
                    rank: Some(65535),
                    ..Options::default()
                },
            ),
            (
                "mmc.watermark_high = 100",
                Options {
                    watermark_high: Some(100),
                    ..Options::default()
                },
            ),
            (
                "mmc.watermark_low = 1",
                Options {
                    watermark_low: Some(1),
                    ..Options::default()
                },
            ),
            (
                "mmc.http_address = [::1]:80",
                Options {
                    http_address: Some("[::1]:80".into()),
                    ..Options::default()
                },
            ),
            (
                "mmc.http_address = :80",
                Options {
                    http_address: Some("127.0.0.1:80".into()),
                    ..Options::default()
                },
            ),
            (
                "mmc.http_address =",
                Options {
                    http_address: Some(String::new()),
                    ..Options::default()
                },
            ),
            (
                "mmc.http_token = s3cret",
                Options {
                    http_token: Some("s3cret".into()),
                    ..Options::default()
                },
            ),
            (
                "mmc.log_level = trace",
                Options {
                    log_level: Some(Level::Trace),
                    ..Options::default()
                },
            ),
            (
                "mmc.huge_pages = no",
                Options {
                    huge_pages: Some(false),
                    ..Options::default()
                },
            ),
            (
                "mmc.prefault = 1",
                Options {
                    prefault: Some(true),
                    ..Options::default()
                },
            ),
            (
                "mmc.memory = memfd",
                Options {
                    memory: Some(Memory::Memfd),
                    ..Options::default()
                },
            ),
            (
                "mmc.memory = Private",
                Options {
                    memory: Some(Memory::Private),
                    ..Options::default()
                },
            ),
            (
                "mmc.numa_node = 1023",
                Options {
                    numa_node: Some(1023),
                    ..Options::default()
                },
            ),
            (
                "ock.mmc.local_service.dram.size = 1TB",
                Options {
                    dram_size: Some(1 << 40),
                    ..Options::default()
                },
            ),
            (
                "ock.mmc.local_service.dram.size = 0GB",
                Options {
                    dram_size: Some(0),
                    ..Options::default()
                },
            ),
            (
                "ock.mmc.evict_threshold_high = 70",
                Options {
                    watermark_high: Some(70),
                    ..Options::default()
                },
            ),
            (
                "ock.mmc.evict_threshold_low = 60",
                Options {
                    watermark_low: Some(60),
                    ..Options::default()
                },
            ),
            (
                "ock.mmc.log_level = warn",
                Options {
                    log_level: Some(Level::Warn),
                    ..Options::default()
                },
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(parsed(text), (expected.clone(), Vec::new()), "{text}");
        }
        for key in OWN.iter().chain(DROP_IN).map(|(key, _)| key) {
            let covered = cases.iter().any(|(text, _)| text.split(' ').next() == Some(key));
            assert!(
                covered || *key == "ock.mmc.meta_service.metrics_url",
                "{key} has no case"
            );
        }
    }

    #[test]
    fn the_metrics_url_becomes_the_address_of_the_admin_port() {
        let cases = [
            ("http://127.0.0.1:8000", Some("127.0.0.1:8000")),
            ("http://127.0.0.1:8000/", Some("127.0.0.1:8000")),
            ("http://[::1]:0", Some("[::1]:0")),
            ("http://meta.example.org:8000", Some("meta.example.org:8000")),
            ("http://:8000", Some("127.0.0.1:8000")),
            ("127.0.0.1:8000", Some("127.0.0.1:8000")),
            ("", Some("")),
            ("http://", None),
            ("http:///", None),
            ("http://127.0.0.1", None),
            ("http://127.0.0.1:8000/metrics", None),
            ("http://127.0.0.1:80000", None),
            ("127.0.0.1:8000/", None),
            ("https://127.0.0.1:8000", None),
            ("tcp://127.0.0.1:8000", None),
        ];
        for (url, expected) in cases {
            assert_eq!(parse_metrics_url(url).ok().as_deref(), expected, "{url}");
        }
        assert_eq!(options("ock.mmc.log_level = info").http_address, None);
        assert_eq!(
            parse_metrics_url("https://a:1"),
            Err("must be http://host:port: the admin port has no TLS".to_string())
        );
    }

    #[test]
    fn flags_have_four_words_each_way() {
        for text in ["true", "1", "on", "yes", "TRUE", "Yes", "oN"] {
            assert_eq!(parse_flag(text), Ok(true), "{text}");
        }
        for text in ["false", "0", "off", "no", "False", "NO"] {
            assert_eq!(parse_flag(text), Ok(false), "{text}");
        }
        for text in ["", "2", "y", "enabled", "tru"] {
            assert_eq!(parse_flag(text), Err("must be true or false".to_string()), "{text}");
        }
    }

    #[test]
    fn an_own_option_wins_over_its_service_key_in_either_order() {
        let pairs = [
            ("mmc.dram_size = 4KB", "ock.mmc.local_service.dram.size = 8KB"),
            ("mmc.watermark_high = 91", "ock.mmc.evict_threshold_high = 92"),
            ("mmc.watermark_low = 71", "ock.mmc.evict_threshold_low = 72"),
            ("mmc.http_address = :1", "ock.mmc.meta_service.metrics_url = http://a:2"),
            ("mmc.http_address =", "ock.mmc.meta_service.metrics_url = http://a:2"),
            ("mmc.log_level = trace", "ock.mmc.log_level = info"),
        ];
        for (own, drop_in) in pairs {
            for text in [format!("{own}\n{drop_in}"), format!("{drop_in}\n{own}")] {
                assert_eq!(parsed(&text), (options(own), Vec::new()), "{text}");
            }
        }
    }

    #[test]
    fn sizes_are_rounded_up_and_a_note_says_so() {
        let cases = [("1", 4096), ("4095", 4096), ("4097", 8192), ("0.1GB", 107_376_640)];
        for key in ["mmc.dram_size", "ock.mmc.local_service.dram.size"] {
            for (text, expected) in cases {
                let line = format!("{key} = {text}");
                assert_eq!(options(&line).dram_size, Some(expected), "{line}");
                let message = format!("x.conf:1: {line}: rounded up to {expected} bytes, a multiple of 4096");
                assert_eq!(messages(&line), [(Level::Info, message)]);
            }
        }
    }

    #[test]
    fn keys_without_meaning_are_checked_and_listed_in_one_note() {
        let text = "\
            ock.mmc.meta_service_url = tcp://127.0.0.1:5000\n\
            ock.mmc.meta_service.config_store_url = tcp://[::1]:6000\n\
            ock.mmc.log_path = /var/log/memcache_hybrid\n\
            ock.mmc.local_service.world_size = 256\n\
            ock.mmc.local_service.protocol = device_sdma\n\
            ock.mmc.local_service.hbm.size = 2GB\n\
            ock.mmc.local_service.max.dram.size = 1024GB\n\
            ock.mmc.local_service.max.hbm.size = 0\n\
            ock.mmc.client.retry_milliseconds = 0\n\
            ock.mmc.client.timeout.seconds = 60\n\
            ock.mmc.client.read_thread_pool.size = 32\n\
            ock.mmc.client.write_thread_pool.size = 4\n\
            ock.mmc.client.aggregate.io = true\n\
            ock.mmc.client.aggregate.num = 122\n\
            ock.mmc.ubs_io.enable = false\n\
            ock.mmc.tls.enable = false\n\
            ock.mmc.tls.ca.path = /opt/ock/security/certs/ca.cert.pem\n\
            ock.mmc.tls.decrypter.path =\n";
        let keys: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        for (key, _) in UNUSED {
            assert!(keys.contains(key), "{key} has no line");
        }
        let (options, notes) = parsed(text);
        assert_eq!(options, Options::default());
        let message = format!("x.conf: without meaning in one process, ignored: {}", keys.join(", "));
        assert_eq!(
            notes,
            [Note {
                level: Level::Info,
                message
            }]
        );
    }

    #[test]
    fn every_wrong_value_is_an_error_with_file_line_and_key() {
        let long_path = "p".repeat(1024);
        let cases = [
            ("mmc.rank", "70000", "must be 0 to 65535"),
            ("mmc.rank", "-1", "must be 0 to 65535"),
            ("mmc.rank", "+1", "must be 0 to 65535"),
            ("mmc.rank", "1.5", "must be 0 to 65535"),
            ("mmc.rank", "99999999999999999999", "must be 0 to 65535"),
            ("mmc.rank", "", "must be 0 to 65535"),
            ("mmc.dram_size", "2.5", "must be whole bytes"),
            ("mmc.dram_size", "plenty", "must be a number of bytes, KB, MB, GB or TB"),
            (
                "mmc.dram_size",
                "18446744073709551615",
                "must be at most 18446744073709547520 bytes",
            ),
            (
                "mmc.dram_size",
                "16777216TB",
                "must be at most 18446744073709551615 bytes",
            ),
            ("mmc.watermark_high", "0", "must be 1 to 100"),
            ("mmc.watermark_high", "101", "must be 1 to 100"),
            ("mmc.watermark_low", "80%", "must be 1 to 100"),
            (
                "mmc.http_address",
                "localhost",
                "must be host:port, [IPv6]:port or port, with a port of 0 to 65535",
            ),
            (
                "mmc.log_level",
                "chatty",
                "must be off, error, warn, info, debug or trace",
            ),
            ("mmc.huge_pages", "maybe", "must be true or false"),
            ("mmc.prefault", "", "must be true or false"),
            ("mmc.memory", "shared", "must be private or memfd"),
            ("mmc.numa_node", "1024", "must be 0 to 1023"),
            ("ock.mmc.local_service.dram.size", "1025GB", "must be at most 1TB"),
            ("ock.mmc.evict_threshold_high", "101", "must be 1 to 100"),
            ("ock.mmc.evict_threshold_low", "0", "must be 1 to 100"),
            (
                "ock.mmc.log_level",
                "loud",
                "must be off, error, warn, info, debug or trace",
            ),
            (
                "ock.mmc.meta_service_url",
                "127.0.0.1:5000",
                "must be tcp://host:port, with a port of 1 to 65535",
            ),
            (
                "ock.mmc.meta_service_url",
                "tcp://<ip>:5000",
                "must be tcp://host:port, with a port of 1 to 65535",
            ),
            (
                "ock.mmc.meta_service.config_store_url",
                "tcp://a:0",
                "must be tcp://host:port, with a port of 1 to 65535",
            ),
            ("ock.mmc.log_path", &long_path, "must be a path of at most 1023 bytes"),
            ("ock.mmc.local_service.world_size", "0", "must be 1 to 1024"),
            ("ock.mmc.local_service.world_size", "1025", "must be 1 to 1024"),
            ("ock.mmc.local_service.hbm.size", "2TB", "must be at most 1TB"),
            (
                "ock.mmc.local_service.max.dram.size",
                "x",
                "must be a number of bytes, KB, MB, GB or TB",
            ),
            (
                "ock.mmc.local_service.max.hbm.size",
                "-1",
                "must be a number of bytes, KB, MB, GB or TB",
            ),
            ("ock.mmc.client.retry_milliseconds", "600001", "must be 0 to 600000"),
            ("ock.mmc.client.timeout.seconds", "0", "must be 1 to 600"),
            ("ock.mmc.client.read_thread_pool.size", "65", "must be 1 to 64"),
            ("ock.mmc.client.write_thread_pool.size", "0", "must be 1 to 64"),
            ("ock.mmc.client.aggregate.io", "2", "must be true or false"),
            ("ock.mmc.client.aggregate.num", "131073", "must be 1 to 131072"),
            ("ock.mmc.ubs_io.enable", "perhaps", "must be true or false"),
            ("ock.mmc.tls.enable", "tls1.3", "must be true or false"),
            (
                "ock.mmc.tls.ca.path",
                &long_path,
                "must be a path of at most 1023 bytes",
            ),
        ];
        for (key, value, reason) in cases {
            let expected = format!("x.conf:2: {key} = {}: {reason}", shown(value));
            assert_eq!(sentence(format!("# first\n{key} = {value}\n")), expected);
        }
        let protocol = sentence("ock.mmc.local_service.protocol = carrier_pigeon");
        let expected = "x.conf:1: ock.mmc.local_service.protocol = carrier_pigeon: must be one of host_rdma, ";
        assert!(protocol.starts_with(expected), "{protocol}");
        for (key, _) in UNUSED {
            let covered = *key == "ock.mmc.local_service.protocol" || cases.iter().any(|(each, ..)| each == key);
            assert!(covered, "{key} has no case");
        }
    }

    #[test]
    fn a_wrong_token_is_reported_without_the_token() {
        let cases = ["", "hunter2 hunter2", "hünter2"];
        for token in cases {
            let sentence = sentence(format!("mmc.http_token = {token}"));
            assert!(
                sentence.starts_with("x.conf:1: mmc.http_token: must be 1 to 1024 visible ASCII"),
                "{sentence}"
            );
        }
        assert_eq!(
            sentence("mmc.http_tokens = hunter2"),
            "x.conf:1: mmc.http_tokens: unknown key"
        );
    }

    #[test]
    fn an_unknown_key_is_a_note_under_the_services_prefix_and_an_error_elsewhere() {
        let warned = [
            "ock.mmc.novel",
            "ock.mmc.",
            "ock.mmc.TLS.enable",
            "ock.mmc.local_service.hcom_url",
            "ock.mmc.Rank x",
        ];
        for key in warned {
            let message = format!("x.conf:2: {key}: unknown key, ignored");
            assert_eq!(
                messages(&format!("\n{key} = anything = 1 # x\n")),
                [(Level::Warn, message)]
            );
        }
        for key in [
            "mmc.novel",
            "mmc.",
            "MMC.rank",
            "mmc.config_path",
            "rank",
            "ock.mmc",
            "ock.other",
            "ubsio.disk.path",
        ] {
            assert_eq!(
                sentence(format!("\n{key} = 1\n")),
                format!("x.conf:2: {key}: unknown key")
            );
        }
    }

    #[test]
    fn of_a_key_that_comes_twice_the_last_line_counts_and_a_note_says_so() {
        let replaced = |key: &str| (Level::Warn, format!("x.conf:3: {key}: replaces the value of line 1"));
        for (key, value, other) in [("mmc.rank", "1", "2"), ("ock.mmc.evict_threshold_high", "91", "92")] {
            let text = format!("{key} = {value}\n\n{key} = {other}\n");
            assert_eq!(options(&text), options(&format!("{key} = {other}")));
            assert_eq!(messages(&text), [replaced(key)]);
        }
        // What is listed once stays listed once.
        let unused = "ock.mmc.tls.enable";
        let listed = (
            Level::Info,
            format!("x.conf: without meaning in one process, ignored: {unused}"),
        );
        assert_eq!(
            messages(&format!("{unused} = on\n\n{unused} = off")),
            [replaced(unused), listed]
        );
        let unknown = "ock.mmc.novel";
        let warned = (Level::Warn, format!("x.conf:1: {unknown}: unknown key, ignored"));
        assert_eq!(
            messages(&format!("{unknown} = 1\n\n{unknown} = 2")),
            [warned, replaced(unknown)]
        );
        // A wrong value is an error even where a later line would replace it.
        assert!(sentence("mmc.rank = x\nmmc.rank = 1").starts_with("x.conf:1: mmc.rank = x: "));
    }

    #[test]
    fn watermarks_of_one_file_that_contradict_each_other_name_both_lines() {
        let text = "ock.mmc.evict_threshold_high = 70\n#\nock.mmc.evict_threshold_low = 71\n";
        let expected = "must not be above ock.mmc.evict_threshold_high = 70 of line 1";
        assert_eq!(
            sentence(text),
            format!("x.conf:3: ock.mmc.evict_threshold_low = 71: {expected}")
        );
        assert_eq!(
            sentence(format!("{text}mmc.watermark_high = 60\nmmc.watermark_low = 61")),
            "x.conf:5: mmc.watermark_low = 61: must not be above mmc.watermark_high = 60 of line 4"
        );
        assert_eq!(
            options(&format!("{text}mmc.watermark_low = 70")).watermark_low,
            Some(70)
        );
    }

    #[test]
    fn a_file_that_is_too_large_or_no_file_is_refused() {
        let path = std::env::temp_dir().join(format!("mmc-config-{}-large.conf", std::process::id()));
        let limit = usize::try_from(MAX_FILE_BYTES).expect("64 bits");
        let outcomes = [limit, limit + 1].map(|bytes| {
            std::fs::write(&path, vec![b'\n'; bytes]).expect("the temporary directory is writable");
            read(&path)
        });
        let _ = std::fs::remove_file(&path);
        let [fits, too_large] = outcomes;
        assert_eq!(fits, Ok((Options::default(), Vec::new())));
        let sentence = format!("{}: a file of settings must be at most 1048576 bytes", path.display());
        assert_eq!(too_large, Err(Error::InvalidParam(sentence.into())));

        assert!(matches!(read(Path::new("/dev/zero")), Err(Error::InvalidParam(_))));
        match read(&std::env::temp_dir()) {
            Err(Error::Io(sentence)) => assert!(sentence.contains(": can't be read: "), "{sentence}"),
            other => panic!("{other:?}"),
        }
    }
}
