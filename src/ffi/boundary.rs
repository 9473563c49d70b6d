//! What stands at the boundary itself: the guard around every export, this thread's last error, and what happens at load.
//!
//! The last error is kept as the value that it is and put into words when somebody asks, so that a miss costs no formatting. A panic
//! behind the guard becomes `MMC_ERR_INTERNAL`; its message goes to the last error and the logger, and not, as Rust would have it, to
//! standard error. `fork` is noticed by a handler that the library registers when it is loaded.

use std::cell::{Cell, RefCell};
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, Result, text_of};
use crate::log::{Level, say};

/// How often this process is a fork of the one that loaded the library.
static FORKS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static LAST: RefCell<Last> = const { RefCell::new(Last { failure: None, text: None }) };
    /// Depth of guards on this thread: a panic inside one is ours.
    static GUARDED: Cell<u32> = const { Cell::new(0) };
}

/// The last failure, and its words once they were asked for.
struct Last {
    failure: Option<(&'static str, Error)>,
    /// Ends in a NUL.
    text: Option<String>,
}

/// Runs the body of the export `name`. A failure, or a panic, becomes its code and this thread's last error.
pub(super) fn guard(name: &'static str, body: impl FnOnce() -> Result<()>) -> i32 {
    GUARDED.set(GUARDED.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(body));
    GUARDED.set(GUARDED.get() - 1);
    let error = match result {
        Ok(Ok(())) => return 0,
        Ok(Err(error)) => error,
        Err(panic) => {
            let error = Error::Internal(words_of(panic.as_ref()).into());
            say!(Level::Error, "{name}: {error}");
            error
        }
    };
    let code = error.code();
    // While the thread ends its last error may be gone already: then nobody can ask for it either.
    let _ = LAST.try_with(|last| {
        *last.borrow_mut() = Last {
            failure: Some((name, error)),
            text: None,
        }
    });
    code
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".into())
}

/// This thread's last failure in words; empty when there was none. Valid until the thread's next failure.
pub(super) fn last_words() -> *const c_char {
    let words = LAST.try_with(|last| {
        let last = &mut *last.borrow_mut();
        let Some((name, error)) = &last.failure else {
            return c"".as_ptr();
        };
        if last.text.is_none() {
            last.text = text_of(format_args!("{name}: {error}\0"));
        }
        match &last.text {
            Some(text) => text.as_ptr().cast(),
            None => c"there is no memory for the words".as_ptr(),
        }
    });
    words.unwrap_or(c"".as_ptr())
}

/// How often this process is a fork of the one that loaded the library: a store remembers it and is refused in a child.
pub(super) fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Whether this thread is inside a call of the library: a callback of the host is.
pub(super) fn is_inside() -> bool {
    GUARDED.get() > 1
}

extern "C" fn note_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Runs when the library is loaded, before any other code of it.
#[ctor::ctor(unsafe)]
fn at_load() {
    crate::sync::register_fences();
    // SAFETY: the handler only adds to an atomic, which any state of the child allows; the library is never unloaded.
    unsafe { libc::pthread_atfork(None, None, Some(note_fork)) };
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let is_ours = std::thread::current()
            .name()
            .is_some_and(|name| name.starts_with("mmc-"));
        if is_ours {
            // A thread of the library: its host's standard error is not the place.
            say!(Level::Error, "defect of the library: {panic}");
        } else if GUARDED.try_with(Cell::get).unwrap_or(0) == 0 {
            print(panic);
        }
        // What is left is caught at the boundary and reported there.
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{MMC_ERR_INTERNAL, MMC_ERR_NOT_FOUND};
    use std::ffi::CStr;

    fn words() -> String {
        // SAFETY: valid until the next failure of this thread.
        unsafe { CStr::from_ptr(last_words()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_becomes_a_code_and_the_last_error() {
        assert_eq!(guard("mmc_test", || panic!("boom {}", 7)), MMC_ERR_INTERNAL);
        assert_eq!(words(), "mmc_test: defect of the library: boom 7");
        assert_eq!(guard("mmc_test", || std::panic::panic_any(7)), MMC_ERR_INTERNAL);
        assert_eq!(words(), "mmc_test: defect of the library: a panic without words");
    }

    #[test]
    fn the_last_error_is_this_threads_and_outlives_successes() {
        assert_eq!(guard("mmc_test", || Err(Error::NotFound)), MMC_ERR_NOT_FOUND);
        assert_eq!(guard("mmc_test", || Ok(())), 0);
        assert_eq!(words(), "mmc_test: no readable object has this key");
        std::thread::spawn(|| assert_eq!(words(), "")).join().unwrap();
    }
}
