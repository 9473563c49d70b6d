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
            "mmc.eviction = Prefix",
            Options {
                eviction: Some(Eviction::Prefix),
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
            "mmc.ssd_path = /var/cache/mmc",
            Options {
                ssd_path: Some("/var/cache/mmc".into()),
                ..Options::default()
            },
        ),
        (
            "mmc.ssd_size = 2TB",
            Options {
                ssd_size: Some(2 << 40),
                ..Options::default()
            },
        ),
        (
            "mmc.move_rate = 200MB",
            Options {
                move_rate: Some(200 << 20),
                ..Options::default()
            },
        ),
        (
            "mmc.verify_dram = on",
            Options {
                verify_dram: Some(true),
                ..Options::default()
            },
        ),
        (
            "mmc.state_path = /var/lib/mmc",
            Options {
                state_path: Some("/var/lib/mmc".into()),
                ..Options::default()
            },
        ),
        (
            "mmc.state_wipe = on",
            Options {
                state_wipe: Some(true),
                ..Options::default()
            },
        ),
        (
            "mmc.share = unix:/run/mmc/pool.sock",
            Options {
                share: Some("unix:/run/mmc/pool.sock".into()),
                ..Options::default()
            },
        ),
        (
            "mmc.share =",
            Options {
                share: Some(String::new()),
                ..Options::default()
            },
        ),
        (
            "mmc.share_mode = 660",
            Options {
                share_mode: Some(0o660),
                ..Options::default()
            },
        ),
        (
            "mmc.share_users = 1000, 1001",
            Options {
                share_users: Some(vec![1000, 1001]),
                ..Options::default()
            },
        ),
        (
            "mmc.share_groups =",
            Options {
                share_groups: Some(vec![]),
                ..Options::default()
            },
        ),
        (
            "mmc.share_wait_ms = 250",
            Options {
                share_wait_ms: Some(250),
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
    for (key, _) in UNUSED.iter().chain(CLIENTS) {
        assert!(keys.contains(key), "{key} has no line");
    }
    let is_clients = |key: &&str| CLIENTS.iter().any(|(client, _)| client == key);
    let (clients, unused): (Vec<&str>, Vec<&str>) = keys.iter().copied().partition(is_clients);
    let (options, notes) = parsed(text);
    assert_eq!(options, Options::default());
    let note = |what: &str, keys: &[&str]| Note {
        level: Level::Info,
        message: format!("x.conf: {what}: {}", keys.join(", ")),
    };
    assert_eq!(
        notes,
        [
            note("of those who attach to a pool, not of a store", &clients),
            note("without meaning in one process, ignored", &unused),
        ]
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
        ("mmc.eviction", "lru", "must be prefix or adaptive"),
        ("mmc.numa_node", "1024", "must be 0 to 1023"),
        (
            "mmc.share",
            "/run/mmc.sock",
            "must be unix:/path, with an absolute path of at most 107 bytes",
        ),
        ("mmc.share_mode", "0680", "must be 1 to 0777 octal"),
        (
            "mmc.share_users",
            "root",
            "must be at most 64 numbers of 0 to 4294967294, with commas between them",
        ),
        (
            "mmc.share_groups",
            "1,",
            "must be at most 64 numbers of 0 to 4294967294, with commas between them",
        ),
        ("mmc.share_wait_ms", "0", "must be 1 to 86400000"),
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
