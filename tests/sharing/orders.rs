//! The process's side: one order a line, one answer a line. An answer is what was asked for, or the name of a code of the C ABI.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use mmc::ffi::report::mmc_error_name;

use crate::support::*;
use crate::work::{LARGEST, Load, Plan, bytes_of_object, number_of};

/// A process of a test: a handle, and what it holds.
struct Actor {
    address: CString,
    store: Option<Arc<Store>>,
    load: Option<Load>,
    views: HashMap<String, mmc_view>,
    line: Arc<Mutex<UnixStream>>,
}

/// Does what it is told over its standard input, which is a socket, until that is closed.
pub fn obey(socket: &str) {
    // SAFETY: whoever started this process has given it this descriptor, which nobody else uses.
    let line = unsafe { UnixStream::from_raw_fd(0) };
    let orders = BufReader::new(line.try_clone().unwrap());
    let mut actor = Actor {
        address: CString::new(format!("unix:{socket}")).unwrap(),
        store: None,
        load: None,
        views: HashMap::new(),
        line: Arc::new(Mutex::new(line)),
    };
    for order in orders.lines() {
        let Ok(order) = order else { break };
        let words: Vec<&str> = order.split(' ').collect();
        let answer = actor.carry_out(&words).unwrap_or_else(name_of_code);
        say(&actor.line, &answer);
    }
}

fn say(line: &Mutex<UnixStream>, text: &str) {
    // Who is not heard any more ends at the next order.
    let _ = line.lock().unwrap().write_all(format!("{text}\n").as_bytes());
}

fn name_of_code(code: i32) -> String {
    // SAFETY: a static string.
    let name = unsafe { CStr::from_ptr(mmc_error_name(code)) };
    name.to_str().unwrap().into()
}

impl Actor {
    fn store(&self) -> &Arc<Store> {
        self.store.as_ref().expect("it has opened a store, or attached")
    }

    fn carry_out(&mut self, words: &[&str]) -> Outcome<String> {
        let number = |place: usize| words[place].parse::<u64>().unwrap();
        let done = |()| "ok".to_string();
        match words[0] {
            "open" => {
                raise_limit_of_descriptors();
                let own = mmc_config {
                    dram_size: number(1),
                    share: self.address.as_ptr(),
                    share_wait_ms: number(2),
                    // Pages that are there or not as others touch them would change what is counted.
                    huge_pages: MMC_OFF,
                    ..config()
                };
                self.store = Some(Arc::new(Store::open(&own)?));
                Ok(done(()))
            }
            "attach" => {
                let options = mmc_attach_options {
                    dram_size: number(1),
                    rank: number(2) as u32,
                    huge_pages: MMC_OFF,
                    ..attach_options()
                };
                let store = Store::attach(&self.address, &options)?;
                let rank = store.rank();
                self.store = Some(Arc::new(store));
                Ok(format!("rank {}", rank as i32))
            }
            "put" => {
                let bytes = bytes_of_object(words[1], number(2));
                self.store().put(words[1], &bytes, None).map(done)
            }
            "put-at" => {
                let rank = number(3) as u32;
                let options = mmc_put_options {
                    preferred_ranks: &rank,
                    preferred_count: 1,
                    ..put_options()
                };
                let bytes = bytes_of_object(words[1], number(2));
                self.store().put(words[1], &bytes, Some(&options)).map(done)
            }
            "get" => {
                let mut bytes = vec![0; LARGEST];
                let size = self.store().get(words[1], &mut bytes, MMC_GET_UP_TO)?;
                Ok(number_of(words[1], &bytes[..size as usize]).to_string())
            }
            "remove" => self.store().remove(words[1]).map(done),
            "remove-all" => Ok(self.store().remove_all().to_string()),
            "reserve" => self.hold(words[1], self.store().reserve(words[1], number(2), None)?),
            "commit" => self.store().commit(self.view(words[1]).token).map(done),
            "abort" => self.store().abort(self.view(words[1]).token).map(done),
            "pin" => self.hold(words[1], self.store().pin(words[1], 0)?),
            "unpin" => self.store().unpin(self.view(words[1]).token).map(done),
            // SAFETY: it was pinned, and its memory stays mapped until the store is closed.
            "pinned" => Ok(number_of(words[1], unsafe { bytes_of(self.view(words[1])) }).to_string()),
            "lease" => self.store().lease(words[1], number(2)).map(done),
            "load" => {
                let plan = Plan {
                    keys: number(1),
                    seed: number(2),
                    is_asking_only: words[3] == "asking",
                    is_contributing: words[3] == "contributing",
                };
                let line = Arc::clone(&self.line);
                let keeps = move |key: &str| say(&line, &format!("kept {key}"));
                self.load = Some(Load::start(self.store(), plan, keeps));
                Ok(done(()))
            }
            "operations" => Ok(self.load.as_ref().expect("it is loading").operations().to_string()),
            "halt" => {
                self.load.as_ref().expect("it is loading").stop();
                self.end_of_load()
            }
            "end-of-load" => self.end_of_load(),
            "stats" => {
                let stats = self.store().stats();
                let holds = stats.pins + stats.reservations + stats.leases;
                Ok(format!("{} {} {}", stats.allocated, holds, stats.attached))
            }
            "attached" => Ok(self.store().stats().attached.to_string()),
            "stored" => Ok(self.store().stats().stored_keys.to_string()),
            "evicted" => Ok(self.store().stats().evict_operations.to_string()),
            "ranks" => {
                let ranks = self.store().segments().into_iter();
                Ok(ranks
                    .map(|segment| segment.rank.to_string())
                    .collect::<Vec<_>>()
                    .join(" "))
            }
            "has" => Ok(format!(
                "{} descriptors, {} memfds mapped",
                descriptors(),
                mapped_memfds()
            )),
            "shut" => Ok(shut_sockets().to_string()),
            "fork" => Ok(fork_onlooker().to_string()),
            "close" => {
                let store = self.store.take().expect("it has opened a store, or attached");
                Arc::into_inner(store).expect("no load goes on").close().map(done)
            }
            order => panic!("no order is called {order}"),
        }
    }

    fn hold(&mut self, key: &str, view: mmc_view) -> Outcome<String> {
        self.views.insert(key.into(), view);
        Ok("ok".into())
    }

    fn view(&self, key: &str) -> &mmc_view {
        &self.views[key]
    }

    fn end_of_load(&mut self) -> Outcome<String> {
        let load = self.load.take().expect("it is loading");
        let end = if load.join() { "disconnected" } else { "stopped" };
        Ok(end.into())
    }
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn mapped_memfds() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("/memfd:")).count()
}

fn raise_limit_of_descriptors() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a struct to be filled, and then one that is.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
}

/// Shuts every socket of this process but its line, as if the connections had broken; how many.
fn shut_sockets() -> usize {
    let mut shut = 0;
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        let entry = entry.unwrap();
        let number: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
        let is_socket = fs::read_link(entry.path()).is_ok_and(|to| to.to_str().unwrap().starts_with("socket:"));
        // The line is open twice: for reading it is a duplicate.
        if is_socket && !is_line(number) {
            // SAFETY: whatever the descriptor is, only its connection ends.
            assert_eq!(unsafe { libc::shutdown(number, libc::SHUT_RDWR) }, 0);
            shut += 1;
        }
    }
    shut
}

fn is_line(number: i32) -> bool {
    let inode = |number| fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
    inode(number) == inode(0)
}

/// Forks a child that does nothing and keeps everything open, until the test lets its line go.
fn fork_onlooker() -> libc::pid_t {
    // SAFETY: the child calls what a forked child may, and ends without running anything of its parent's.
    unsafe {
        match libc::fork() {
            -1 => panic!("fork: {}", std::io::Error::last_os_error()),
            0 => {
                let mut line = libc::pollfd {
                    fd: 0,
                    events: 0,
                    revents: 0,
                };
                while line.revents & libc::POLLHUP == 0 {
                    libc::poll(&mut line, 1, -1);
                }
                libc::_exit(0);
            }
            child => child,
        }
    }
}
