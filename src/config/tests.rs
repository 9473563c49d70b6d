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
        eviction: Eviction::Adaptive,
        ssd_path: None,
        ssd_size: 0,
        move_rate: 0,
        verify_dram: false,
        state_path: None,
        state_wipe: false,
        share: None,
        share_mode: 0o600,
        share_users: Vec::new(),
        share_groups: Vec::new(),
        share_wait_ms: 60_000,
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
    Layers {
        name: "eviction",
        caller: (|options| options.eviction = Some(Eviction::Prefix), "Prefix"),
        variable: None,
        file: ("mmc.eviction = prefix", "Prefix"),
        default: "Adaptive",
        read: |config| format!("{:?}", config.eviction),
    },
    Layers {
        name: "share",
        caller: (
            |options| options.share = Some("unix:/caller".into()),
            "Some(\"unix:/caller\")",
        ),
        variable: None,
        file: ("mmc.share = unix:/file", "Some(\"unix:/file\")"),
        default: "None",
        read: |config| format!("{:?}", config.share),
    },
    Layers {
        name: "share turned off",
        caller: (|options| options.share = Some(String::new()), "None"),
        variable: None,
        file: ("mmc.share = unix:/file", "Some(\"unix:/file\")"),
        default: "None",
        read: |config| format!("{:?}", config.share),
    },
    Layers {
        name: "memory of a shared store",
        caller: (|options| options.memory = Some(Memory::Private), "Private"),
        variable: None,
        file: ("mmc.share = unix:/file", "Memfd"),
        default: "Private",
        read: |config| format!("{:?}", config.memory),
    },
    Layers {
        name: "share_mode",
        caller: (|options| options.share_mode = Some(0o777), "777"),
        variable: None,
        file: ("mmc.share_mode = 0660", "660"),
        default: "600",
        read: |config| format!("{:o}", config.share_mode),
    },
    Layers {
        name: "share_users",
        caller: (|options| options.share_users = Some(vec![]), "[]"),
        variable: None,
        file: ("mmc.share_users = 1000, 1001", "[1000, 1001]"),
        default: "[]",
        read: |config| format!("{:?}", config.share_users),
    },
    Layers {
        name: "share_groups",
        caller: (|options| options.share_groups = Some(vec![0]), "[0]"),
        variable: None,
        file: ("mmc.share_groups = 7", "[7]"),
        default: "[]",
        read: |config| format!("{:?}", config.share_groups),
    },
    Layers {
        name: "share_wait_ms",
        caller: (|options| options.share_wait_ms = Some(1), "1"),
        variable: None,
        file: ("mmc.share_wait_ms = 86400000", "86400000"),
        default: "60000",
        read: |config| config.share_wait_ms.to_string(),
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
            let text = if by_file { layers.file.0 } else { "# silent" };
            std::fs::write(&scratch.0, text).expect("written before");
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
            let without_file = Options {
                config_path: None,
                ..options.clone()
            };
            let (config, notes) = options.resolve(&variables(&given)).expect(layers.name);
            let context = format!(
                "{} (caller {by_caller}, variable {by_variable}, file {by_file})",
                layers.name
            );
            assert_eq!((layers.read)(&config), expected, "{context}");
            assert_eq!(notes, [], "{context}");

            // A text that is laid under the caller's options before is as good as the file, and the only one.
            let with_text = without_file.with_text("x.conf", text.as_bytes(), &variables(&given));
            let (options, level, notes) = with_text.expect(layers.name);
            assert_eq!((level, notes), (config.log_level, Vec::new()), "{context}");
            given.push(("MMC_CONFIG_PATH", "/nowhere/at/all"));
            let again = options.resolve(&variables(&given)).expect(layers.name);
            assert_eq!(again, (config, Vec::new()), "{context}");
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
fn a_text_is_read_as_a_file_is_and_called_by_its_name() {
    let with_text = |text: &str| Options::default().with_text("mmc-local.conf", text.as_bytes(), &nothing);
    let (options, level, notes) = with_text("mmc.rank = 3\nock.mmc.novel = 1\n").expect("both lines are fine");
    assert_eq!((options.rank, level), (Some(3), None));
    let message = "mmc-local.conf:2: ock.mmc.novel: unknown key, ignored".into();
    assert_eq!(
        notes,
        [Note {
            level: Level::Warn,
            message
        }]
    );
    let cases = [
        ("mmc.rank = x", "mmc-local.conf:1: mmc.rank = x: must be 0 to 65535"),
        (
            &"#".repeat((1 << 20) + 1),
            "mmc-local.conf: a file of settings must be at most 1048576 bytes",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(sentence(with_text(text)), expected);
    }
    let caller = Options {
        watermark_high: Some(50),
        ..Options::default()
    };
    assert_eq!(
        sentence(caller.with_text("mmc-local.conf", b"mmc.watermark_low = 60", &nothing)),
        "watermark_low 60 (from mmc-local.conf): must not be above watermark_high 50 (from the caller)"
    );
    let wrong = Options {
        rank: Some(1 << 16),
        ..Options::default()
    };
    assert_eq!(
        sentence(wrong.with_text("x.conf", b"", &nothing)),
        "rank 65536: must be 0 to 65535"
    );
    let environment = variables(&[("MMC_LOG_LEVEL", "chatty")]);
    let refused = sentence(Options::default().with_text("x.conf", b"", &environment));
    assert!(refused.starts_with("MMC_LOG_LEVEL = chatty: must be"), "{refused}");
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
    let cases: [(Give, &str); 20] = [
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
        (
            |options| options.share = Some("/run/mmc.sock".into()),
            "share = /run/mmc.sock: must be unix:/path, with an absolute path of at most 107 bytes",
        ),
        (
            |options| options.share_mode = Some(0),
            "share_mode 0000 octal: must be 1 to 0777 octal",
        ),
        (
            |options| options.share_mode = Some(0o1000),
            "share_mode 1000 octal: must be 1 to 0777 octal",
        ),
        (|options| options.share_users = Some(vec![0; 65]), "share_users = 0,0,0"),
        (
            |options| options.share_groups = Some(vec![u32::MAX]),
            "share_groups = 4294967295: must be at most 64 numbers of 0 to 4294967294",
        ),
        (
            |options| options.share_wait_ms = Some(86_400_001),
            "share_wait_ms 86400001: must be 1 to 86400000",
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
