//! What the admin port takes of the process and gives back, counted in a process that has nothing else.
//!
//! Descriptors, threads, processor time and the action of a signal belong to the whole process, where other tests run
//! beside this one. So each test here starts the test program again with itself alone.

use std::fs::{self, File};
use std::process::Command;

use super::*;

/// Set for a process that runs one test alone, to that test's name.
const ALONE: &str = "MMC_TEST_ALONE";

/// Whether this process runs the test alone. If not, has it run in a process of its own, and checks that it passed there.
fn is_alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "--test-threads=1",
        "--nocapture",
        &format!("{module}::{test}"),
    ]);
    let output = command.env(ALONE, test).output().unwrap();
    let (text, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{}\n{text}\n{errors}",
        output.status
    );
    false
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

/// Waits for a number to come back to what it was.
fn settles(within: Duration, expected: usize, measured: fn() -> usize) {
    let started = Instant::now();
    while measured() != expected {
        assert!(started.elapsed() < within, "{} instead of {expected}", measured());
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn everything_it_took_comes_back() {
    if !is_alone("everything_it_took_comes_back") {
        return;
    }
    let (fds, tasks) = (descriptors(), threads());
    let temporary = fs::read_dir(std::env::temp_dir()).unwrap().count();
    let mut server = serve(Sample::with_keys(10_000_000), QUICK);
    let while_idle = descriptors();
    // What clients took comes back while it runs ...
    drop(besiege(server.address()));
    settles(5 * SECOND, while_idle, descriptors);
    assert_eq!(get(server.address(), "/health").status, 200);
    assert_eq!(
        fs::read_dir(std::env::temp_dir()).unwrap().count(),
        temporary,
        "nothing is left on disk"
    );
    // ... and the rest when it stops in the middle of everything.
    let clients = besiege(server.address());
    thread::sleep(SECOND / 10);
    let started = Instant::now();
    server.stop();
    assert!(started.elapsed() < SECOND / 2, "{:?}", started.elapsed());
    drop(clients);
    settles(SECOND, fds, descriptors);
    // The pool of `tiny_http` takes up to two rounds of five seconds to end; none of its threads knows the store.
    settles(12 * SECOND, tasks, threads);
}

#[test]
fn it_outlives_a_lack_of_descriptors() {
    if !is_alone("it_outlives_a_lack_of_descriptors") {
        return;
    }
    let limit = libc::rlimit {
        rlim_cur: 200,
        rlim_max: 200,
    };
    // SAFETY: a valid struct is passed; the limit concerns this process only, which runs nothing else.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    assert_eq!(result, 0);
    let server = serve(Sample::with_keys(10), QUICK);
    for left in 0..12 {
        // Each number of descriptors that are left meets another call that needs one.
        let mut hoard: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        hoard.truncate(hoard.len() - left - 1);
        let mut stream = connect(server.address());
        let busy = cpu_time();
        stream.write_all(b"GET /health HTTP/1.1\r\n\r\n").unwrap();
        thread::sleep(SECOND / 5);
        assert!(
            cpu_time() - busy < SECOND / 10,
            "a lack of {left} is waited for, not spun on"
        );
        drop(hoard);
        let reply = Reply::of(finish(stream));
        assert!(reply.status == 200 || reply.status == 503, "{left}: {reply:?}");
        assert_eq!(get(server.address(), "/health").body, "OK", "after {left} were left");
    }
}

#[test]
fn a_server_behind_that_died_is_replaced() {
    if !is_alone("a_server_behind_that_died_is_replaced") {
        return;
    }
    let server = serve(Sample::with_keys(10), QUICK);
    assert_eq!(get(server.address(), "/health").body, "OK");
    // The only Unix socket that listens is the private one: shutting it is what ends its accept thread.
    let mut ended = 0;
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        let fd: libc::c_int = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
        let (mut value, mut size) = (0 as libc::c_int, size_of::<libc::c_int>() as libc::socklen_t);
        let mut option = |name| {
            // SAFETY: value and size describe a live integer; a descriptor that is no socket is an error.
            let result = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &mut size) };
            (result == 0).then_some(value)
        };
        if option(libc::SO_ACCEPTCONN) == Some(1) && option(libc::SO_DOMAIN) == Some(libc::AF_UNIX) {
            // SAFETY: no memory is involved.
            ended += i32::from(unsafe { libc::shutdown(fd, libc::SHUT_RDWR) } == 0);
        }
    }
    assert_eq!(ended, 1);
    thread::sleep(SECOND / 10);
    assert_eq!(get(server.address(), "/health").body, "OK");
    assert_eq!(get(server.address(), "/get_all_keys").body, all_keys(10));
}

#[test]
fn a_host_that_dies_of_sigpipe_does_not_get_one() {
    if !is_alone("a_host_that_dies_of_sigpipe_does_not_get_one") {
        return;
    }
    // SAFETY: restores the default that every C program has; no handler is involved.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let server = serve(Sample::with_keys(1_000_000), QUICK);
    for _ in 0..20 {
        let mut stream = start_listing(server.address());
        stream.read_exact(&mut [0; 1000]).unwrap(); // dropped in the middle of its response
    }
    for _ in 0..20 {
        start_listing(server.address()); // dropped before it
    }
    assert_eq!(get(server.address(), "/health").body, "OK");
}

/// Processor time of the whole process.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live struct.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn idle_clients_cost_no_processor_time() {
    if !is_alone("idle_clients_cost_no_processor_time") {
        return;
    }
    let server = serve(
        Sample::with_keys(10_000_000),
        Limits {
            stall: 60 * SECOND,
            ..PATIENT
        },
    );
    let clients = besiege(server.address());
    thread::sleep(SECOND);
    let before = cpu_time();
    thread::sleep(SECOND);
    assert!(cpu_time() - before < SECOND / 20, "{:?}", cpu_time() - before);
    drop(clients);
}

#[test]
fn a_forked_child_keeps_nothing_open() {
    if !is_alone("a_forked_child_keeps_nothing_open") {
        return;
    }
    let mut server = serve(Sample::with_keys(10_000_000), PATIENT);
    let mut clients = besiege(server.address());
    thread::sleep(SECOND / 10);
    // SAFETY: the child calls nothing but `pause`, which may be called after a fork in a process with threads.
    let child = match unsafe { libc::fork() } {
        0 => loop {
            // SAFETY: no memory is involved.
            unsafe { libc::pause() };
        },
        child => child,
    };
    assert!(child > 0);
    let started = Instant::now();
    server.stop();
    assert!(started.elapsed() < SECOND / 2, "{:?}", started.elapsed());
    assert!(
        TcpStream::connect(server.address()).is_err(),
        "the port is closed though the child has its descriptor"
    );
    for client in &mut clients {
        let _ = client.read_to_end(&mut Vec::new()); // ends, or is reset: it does not hang
    }
    // SAFETY: the child is ours and has not been waited for.
    unsafe { libc::kill(child, libc::SIGKILL) };
    // SAFETY: as above; no status is asked for.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
}
