//! What the library has to say, and to whom.
//!
//! One level and one sink for the whole process: several stores in it speak through the same logger, as the host has one.
//! The level starts at [`Level::Off`]: a library says nothing unasked. With a level and no sink, lines go to standard error.
//!
//! Nothing here blocks a fork: the sink is an `arc-swap` pointer and the level an atomic, so a child never meets a lock that a
//! thread of its parent held. No lock is held while the host's logger runs; [`set_sink`] returns when no other thread is in the old one,
//! so that the host may free what its logger used.

use std::cell::Cell;
use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use arc_swap::ArcSwapOption;

/// How much is said: each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Nothing.
    Off = 1,
    /// What failed and will not mend itself.
    Error = 2,
    /// What was passed over or will fail later.
    Warn = 3,
    /// What a host notes once: opened, closed, listening.
    Info = 4,
    /// What happens now and then: segments, evictions in bulk.
    Debug = 5,
    /// Everything.
    Trace = 6,
}

impl Level {
    const ALL: [Level; 6] = [
        Level::Off,
        Level::Error,
        Level::Warn,
        Level::Info,
        Level::Debug,
        Level::Trace,
    ];

    /// The level of this number of the C ABI.
    pub fn from_number(number: u32) -> Option<Level> {
        Level::ALL.into_iter().find(|level| *level as u32 == number)
    }

    /// The level of this name, in any case; `warning` is taken for `warn`.
    pub fn parse(text: &str) -> Option<Level> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("warning") {
            return Some(Level::Warn);
        }
        Level::ALL
            .into_iter()
            .find(|level| text.eq_ignore_ascii_case(level.name()))
    }

    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Level::Off => "off",
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }
}

/// Where lines go.
pub(crate) trait Sink: Send + Sync {
    /// Takes one line, without its line break.
    fn write(&self, level: Level, line: &str);
}

/// A sink and the process it was set in: a child's threads are not its parent's.
struct Installed {
    sink: Box<dyn Sink>,
    process: u32,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Off as u8);
static SINK: ArcSwapOption<Installed> = ArcSwapOption::const_empty();

thread_local! {
    /// Set while this thread is in the sink: a logger that calls the library must not be called by that call.
    static WRITING: Cell<bool> = const { Cell::new(false) };
}

pub(crate) fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Replaces the sink; `None` goes back to standard error. Blocks until no other thread is in the old one.
pub(crate) fn set_sink(sink: Option<Box<dyn Sink>>) {
    let process = std::process::id();
    let old = SINK.swap(sink.map(|sink| Arc::new(Installed { sink, process })));
    let Some(old) = old else { return };
    // A logger that replaces itself is in the old one by definition, and a parent's threads never leave it in the child.
    if WRITING.get() || old.process != process {
        return;
    }
    while Arc::strong_count(&old) > 1 {
        std::thread::yield_now();
    }
}

pub(crate) fn is_enabled(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Says one line at this level. Use the macros, which ask first whether anybody wants it.
pub(crate) fn write(level: Level, line: fmt::Arguments<'_>) {
    if WRITING.replace(true) {
        return;
    }
    let _reset = Reset;
    let line = line.to_string();
    match SINK.load_full() {
        Some(installed) => installed.sink.write(level, &line),
        // Standard error may be closed: then nobody is there to be told.
        None => drop(writeln!(std::io::stderr(), "mmc {}: {line}", level.name())),
    }
}

/// Marks the thread as out of the sink, also when the sink panicked.
struct Reset;

impl Drop for Reset {
    fn drop(&mut self) {
        WRITING.set(false);
    }
}

macro_rules! say {
    ($level:expr, $($arg:tt)*) => {
        if $crate::log::is_enabled($level) {
            $crate::log::write($level, format_args!($($arg)*));
        }
    };
}
pub(crate) use say;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_found_by_name_and_number() {
        for level in Level::ALL {
            assert_eq!(Level::parse(level.name()), Some(level));
            assert_eq!(Level::parse(&level.name().to_uppercase()), Some(level));
            assert_eq!(Level::from_number(level as u32), Some(level));
        }
        assert_eq!(Level::parse("warning"), Some(Level::Warn));
        assert_eq!(Level::parse("loud"), None);
        assert_eq!(Level::from_number(0), None);
        assert_eq!(Level::from_number(7), None);
    }
}
