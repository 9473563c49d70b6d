//! Opening and closing the admin port with its store, and where its address comes from.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mmc::error::{MMC_ERR_BUSY, MMC_ERR_INVALID_PARAM, MMC_ERR_IO, MMC_ERR_NO_SPACE, MMC_ERR_NOT_STARTED};
use mmc::ffi::inplace::{mmc_pin, mmc_unpin};
use mmc::ffi::lifetime::mmc_init;
use mmc::ffi::types::mmc_view;

use crate::alone::{self, descriptors, mapped_bytes, threads, wait_until};
use crate::client::{body, connect, exchange, get, send, start_listing};
use crate::pressure::put_long_list;
use crate::store::{Barrier, Settings, Store, UNIT, key, with_units};

const SECOND: Duration = Duration::from_secs(1);
const GIB: u64 = 1 << 30;

#[test]
fn a_taken_port_fails_the_opening_by_name_and_leaves_nothing_behind() {
    let path = concat!(
        module_path!(),
        "::a_taken_port_fails_the_opening_by_name_and_leaves_nothing_behind"
    );
    alone::run(path, &[], || {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = holder.local_addr().unwrap().to_string();
        let settings = Settings {
            dram: GIB,
            address: Some(&taken),
            ..Settings::default()
        };
        let before = (descriptors(), threads(), mapped_bytes());
        for _ in 0..4 {
            let (code, sentence) = Store::try_open(&settings).err().unwrap();
            assert_eq!(code, MMC_ERR_IO);
            assert!(
                sentence.starts_with("mmc_init") && sentence.contains(&taken) && sentence.contains("in use"),
                "{sentence}"
            );
        }
        assert_eq!((descriptors(), threads()), (before.0, before.1));
        assert!(mapped_bytes() < before.2 + 2 * GIB, "memory stays mapped");
        let store = Store::open(&Settings {
            address: None,
            ..with_units(16)
        });
        assert_eq!(store.address(), "");
        store.put("a", b"1").unwrap();
        drop(holder);
        let other = Store::open(&Settings {
            address: Some(&taken),
            ..with_units(16)
        });
        assert_eq!(other.address(), taken);
        assert_eq!(body(&taken, "/get_all_keys"), "", "each store has its own port");
    });
}

#[test]
fn a_store_too_many_leaves_nothing_behind() {
    let path = concat!(module_path!(), "::a_store_too_many_leaves_nothing_behind");
    alone::run(path, &[], || {
        let settings = Settings {
            address: None,
            ..Settings::default()
        };
        let stores: Vec<Store> = (0..1024).map(|_| Store::open(&settings)).collect();
        let before = (descriptors(), threads());
        let (code, sentence) = Store::try_open(&settings).err().unwrap();
        assert_eq!(code, MMC_ERR_NO_SPACE, "{sentence}");
        let (code, _) = Store::try_open(&with_units(1)).err().unwrap();
        assert_eq!(code, MMC_ERR_NO_SPACE);
        wait_until("its threads end", 12 * SECOND, || (descriptors(), threads()) == before);
        drop(stores);
    });
}

#[test]
fn an_address_that_is_none_is_told_with_the_setting() {
    for address in ["127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "a b:1", "127.0.0.1:http"] {
        let (code, sentence) = Store::try_open(&Settings {
            address: Some(address),
            ..Settings::default()
        })
        .err()
        .unwrap();
        assert_eq!(code, MMC_ERR_INVALID_PARAM, "{address}");
        assert!(
            sentence.contains("http_address") && sentence.contains(address),
            "{sentence}"
        );
    }
}

/// Clients in every state that there is; those that are read from are at that point when this returns.
fn clients_in_every_state(address: &str) -> Vec<TcpStream> {
    let mut clients = Vec::new();
    for request in [
        "",
        "GET /heal",
        "GET /health HTTP/1.1\r\nHost: ",
        "\0\0",
        "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
    ] {
        clients.extend((0..8).map(|_| send(address, request)));
    }
    // Two lists are being sent, the others wait for their turn.
    let mut lists: Vec<TcpStream> = (0..6).map(|_| start_listing(address)).collect();
    for list in &mut lists[..2] {
        list.read_exact(&mut [0; 1000]).unwrap();
    }
    clients.extend(lists);
    // Answered, and not closed by the client.
    for _ in 0..4 {
        let mut answered = send(address, "GET /health HTTP/1.1\r\n\r\n");
        answered.read_exact(&mut [0; 15]).unwrap();
        clients.push(answered);
    }
    clients
}

#[test]
fn closing_takes_less_than_a_second_whatever_clients_do() {
    let path = concat!(module_path!(), "::closing_takes_less_than_a_second_whatever_clients_do");
    alone::run(path, &[], || {
        let before = descriptors();
        let mut address = "127.0.0.1:0".to_owned();
        for _ in 0..3 {
            // Opened again at once, at the very address.
            let store = Store::open(&Settings {
                address: Some(&address),
                ..Settings::default()
            });
            put_long_list(&store);
            address = store.address();
            let clients = clients_in_every_state(&address);
            let started = Instant::now();
            store.close().unwrap();
            assert!(started.elapsed() < SECOND, "{:?}", started.elapsed());
            assert!(TcpStream::connect(&address).is_err(), "nobody listens");
            for mut client in clients {
                let _ = client.read_to_end(&mut Vec::new()); // ends or is reset, and does not hang
            }
        }
        wait_until("descriptors come back", SECOND, || descriptors() == before);
    });
}

#[test]
fn health_fails_from_the_moment_that_the_store_is_being_closed() {
    let barrier = Barrier::default();
    let store = Store::open(&Settings::default());
    barrier.add_to(&store, 4 * UNIT);
    let address = store.address();
    std::thread::scope(|scope| {
        let _end = barrier.opens_at_end();
        let put = scope.spawn(|| store.put("a", b"1"));
        barrier.wait_for(1);
        assert_eq!(body(&address, "/health"), "OK");
        let closed = scope.spawn(|| store.close());
        // The closing waits for the put, the put for us.
        wait_until("the store says that it is closing", 10 * SECOND, || {
            get(&address, "/health").status == 500
        });
        assert_eq!(
            get(&address, "/health").parts(),
            (500, "text/plain", "The store is shutting down")
        );
        assert_eq!(store.put("b", b"1").unwrap_err().0, MMC_ERR_NOT_STARTED);
        assert!(!closed.is_finished() && !put.is_finished());
        barrier.open();
        put.join().unwrap().unwrap();
        closed.join().unwrap().unwrap();
    });
    assert!(TcpStream::connect(&address).is_err());
}

#[test]
fn a_store_that_could_not_be_closed_is_healthy() {
    let store = Store::open(&Settings::default());
    store.add_hbm(0, 4 * UNIT);
    store.put("a", b"1").unwrap();
    // SAFETY: all zero is valid.
    let mut view: mmc_view = unsafe { std::mem::zeroed() };
    view.struct_size = size_of::<mmc_view>() as u32;
    // SAFETY: key and view outlive the call.
    assert_eq!(unsafe { mmc_pin(store.0, key("a"), 0, &mut view) }, 0);
    assert_eq!(store.close().unwrap_err().0, MMC_ERR_BUSY);
    assert_eq!(body(&store.address(), "/health"), "OK");
    store.get("a", 1).unwrap();
    // SAFETY: the handle is open.
    assert_eq!(unsafe { mmc_unpin(store.0, view.token) }, 0);
    store.close().unwrap();
}

/// A file of settings that goes away with its test.
struct File(PathBuf);

impl File {
    fn new(test: &str, content: &str) -> File {
        let path = std::env::temp_dir().join(format!("mmc-http-{}-{test}.conf", std::process::id()));
        std::fs::write(&path, content).unwrap();
        File(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Whether the port of a store that was opened with this file, and no address from its caller, answers.
fn listens(file: Option<&str>) -> bool {
    let store = Store::open(&Settings {
        address: None,
        file,
        ..with_units(1)
    });
    match store.address() {
        address if address.is_empty() => false,
        address => {
            assert!(
                address.starts_with("127.0.0.1:") && !address.ends_with(":0"),
                "{address}"
            );
            body(&address, "/health") == "OK"
        }
    }
}

#[test]
fn the_address_may_come_from_a_file_under_either_name() {
    let own = File::new(
        "own",
        "mmc.http_address = 127.0.0.1:0\nmmc.http_token = from-the-file\n",
    );
    assert!(listens(Some(own.path())));
    let drop_in = File::new("drop-in", "ock.mmc.meta_service.metrics_url = http://127.0.0.1:0\n");
    assert!(listens(Some(drop_in.path())));
    let off = File::new(
        "off",
        "mmc.http_address =\nock.mmc.meta_service.metrics_url = http://127.0.0.1:0\n",
    );
    assert!(!listens(Some(off.path())), "the library's own name wins");
    assert!(!listens(None));

    let store = Store::open(&Settings {
        address: None,
        file: Some(own.path()),
        ..with_units(1)
    });
    assert_eq!(
        get(&store.address(), "/metrics").status,
        401,
        "the token of the file counts"
    );
    let with = "GET /metrics HTTP/1.1\r\nAuthorization: Bearer from-the-file\r\n\r\n";
    assert_eq!(exchange(&store.address(), with).status, 200);
    let off = Store::open(&Settings {
        address: Some(""),
        file: Some(own.path()),
        ..with_units(1)
    });
    assert_eq!(off.address(), "", "the caller's word is the last");
}

#[test]
fn the_address_may_come_from_the_environment() {
    let path = concat!(module_path!(), "::the_address_may_come_from_the_environment");
    alone::run(path, &[("MMC_HTTP_ADDRESS", "127.0.0.1:0")], || {
        let mut raw = std::ptr::null_mut();
        // SAFETY: room for the handle is given.
        assert_eq!(unsafe { mmc_init(std::ptr::null(), &mut raw) }, 0);
        let store = Store(raw);
        assert_eq!(body(&store.address(), "/health"), "OK");
        assert!(listens(None));
        let elsewhere = File::new("environment", "mmc.http_address = 256.0.0.1:1\n");
        assert!(listens(Some(elsewhere.path())), "the environment goes before the file");
        let off = Store::open(&Settings {
            address: Some(""),
            ..with_units(1)
        });
        assert_eq!(off.address(), "", "and the caller before the environment");
    });
}

#[test]
fn the_file_may_come_from_the_environment() {
    let path = concat!(module_path!(), "::the_file_may_come_from_the_environment");
    let file = File::new("named", "mmc.http_address = 127.0.0.1:0\n");
    alone::run(path, &[("MMC_CONFIG_PATH", file.path())], || {
        assert!(listens(None));
        let off = File::new("given", "# nothing\n");
        assert!(!listens(Some(off.path())), "the caller's file is read instead");
    });
}

#[test]
fn the_port_is_the_one_that_was_asked_for() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let port = free.port().to_string();
    // Without a host it is the loopback.
    for address in [free.to_string(), format!(":{port}"), port] {
        let store = Store::open(&Settings {
            address: Some(&address),
            ..with_units(1)
        });
        assert_eq!(store.address(), free.to_string());
        drop(connect(&store.address()));
        assert_eq!(body(&store.address(), "/health"), "OK");
    }
}
