//! Streaming copies: KV blocks between a caller's cold buffers and the pool.
//!
//! An ordinary store first reads the cache line that it is about to overwrite, and leaves the line in the cache. For a
//! block of a KV cache both are waste: all of the line gets new bytes, and nobody reads them again soon. Non-temporal
//! stores write whole lines past the caches, which saves a third of the memory traffic and leaves the engine's own data
//! where it is.
//!
//! One run of lines does not keep the memory busy. A processor's prefetcher learns each 4 KiB page anew and stops at
//! its end; so a long copy is cut into up to six pieces of equal length that advance side by side, each with its own
//! page being fetched ahead. Six, because lengths are mostly powers of two and a sixth of one is not: the pieces then
//! lie at different places of their pages and don't compete for the same sets of the caches. Prefetches by hand, near
//! or far, into the first or the second cache, brought nothing on top of that, so there are none.
//!
//! Such stores are **weakly ordered**: they may become visible after a later release store that says "the bytes are
//! there". `stream` leaves the fence to its caller, so that a batch pays for one; `fence` must come after the last copy
//! and before anything publishes the bytes. `copy` is both.
//!
//! A kernel is chosen by what the processor can do, when it is first needed. All of them fill whole, aligned lines of
//! the destination; the parts of lines at both ends, and copies too short to gain anything, are left to
//! `ptr::copy_nonoverlapping`, as is everything on processors that have no kernel here. The source may lie anywhere.

use once_cell::race::OnceRef;
use std::ptr::copy_nonoverlapping;

/// Bytes of a cache line: a non-temporal store that fills less than one goes to memory in pieces, which is slow.
const LINE: usize = 64;

/// Below this many bytes, the wait at the fence and the parts of lines at both ends can cost more than streaming saves.
const STREAM_FROM_BYTES: usize = 2048;

/// One way to copy lines past the caches.
struct Kernel {
    name: &'static str,
    runs_here: fn() -> bool,
    /// Copies a number of whole lines to a destination that is the start of a line.
    copy_lines: unsafe fn(dst: *mut u8, src: *const u8, lines: usize),
}

/// The fastest first; the last one runs everywhere.
static KERNELS: &[Kernel] = &[
    #[cfg(target_arch = "x86_64")]
    Kernel {
        name: "avx512",
        runs_here: || std::is_x86_feature_detected!("avx512f"),
        copy_lines: avx512::copy_lines,
    },
    #[cfg(target_arch = "x86_64")]
    Kernel {
        name: "avx2",
        runs_here: || std::is_x86_feature_detected!("avx2"),
        copy_lines: avx2::copy_lines,
    },
    #[cfg(target_arch = "x86_64")]
    Kernel {
        name: "sse2",
        runs_here: || std::is_x86_feature_detected!("sse2"),
        copy_lines: sse2::copy_lines,
    },
    PORTABLE,
];

const PORTABLE: Kernel = Kernel {
    name: "portable",
    runs_here: || true,
    copy_lines: portable_copy_lines,
};

/// The kernel for this processor.
fn chosen() -> &'static Kernel {
    // A cell that never blocks: threads that come at once all look, and find the same. At a blocking one, such as
    // `LazyLock`, a forked child would wait for ever if a thread of the parent was filling it when it forked.
    static CHOSEN: OnceRef<'static, Kernel> = OnceRef::new();
    CHOSEN.get_or_init(|| {
        // `--cfg portable_copy` is for ThreadSanitizer, to which the other kernels are assembly that it doesn't look into.
        KERNELS
            .iter()
            .find(|kernel| !cfg!(portable_copy) && (kernel.runs_here)())
            .unwrap_or(const { &PORTABLE })
    })
}

/// The kernel that copies on this processor: `avx512`, `avx2`, `sse2` or `portable`.
pub fn kernel_name() -> &'static str {
    chosen().name
}

/// Copies `len` bytes without a fence: the caller calls [`fence`] once, after its last copy and before anything
/// publishes the bytes.
///
/// # Safety
/// `src` is readable and `dst` writable for `len` bytes, the two do not overlap, and until the fence no other thread
/// touches what is written or writes what is read. With a `len` of 0 both may be null.
pub(crate) unsafe fn stream(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: the caller's promise is the callee's; the chosen kernel runs here.
    unsafe { stream_with(chosen(), dst, src, len) }
}

/// Makes the bytes of this thread's streaming copies visible before everything that it stores from here on.
pub(crate) fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has SSE.
    unsafe {
        std::arch::x86_64::_mm_sfence()
    };
}

/// Begins to load a cache line, for a caller who will read it soon. The address may be any.
#[inline]
pub(crate) fn prefetch(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint: it reads nothing, faults nowhere, and every x86-64 processor has it.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Begins to load the first bytes of what will be copied, while the caller still has other things to do than to copy. As many lines as a
/// processor has on their way at once: it would have to wait for more of them.
pub(crate) fn prefetch_source(source: *const u8, len: usize) {
    const MOST: usize = 16 * LINE;
    (0..len.min(MOST))
        .step_by(LINE)
        .for_each(|at| prefetch(source.wrapping_add(at)));
}

/// [`stream`] and [`fence`]: when it returns, a release store may publish the bytes.
///
/// # Safety
/// As for [`stream`].
pub(crate) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: the caller's promise is the callee's.
    unsafe { stream(dst, src, len) };
    fence();
}

/// The bare copy, for benchmarks to compare the store with; not part of the interface.
///
/// # Safety
/// `src` is readable and `dst` writable for `len` bytes, the two do not overlap, and no other thread writes the one or
/// touches the other before it returns.
#[doc(hidden)]
pub unsafe fn streaming_copy(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: the caller's promise is the callee's.
    unsafe { copy(dst, src, len) }
}

/// # Safety
/// As for [`stream`]; the kernel runs here.
unsafe fn stream_with(kernel: &Kernel, dst: *mut u8, src: *const u8, len: usize) {
    if len < STREAM_FROM_BYTES {
        // SAFETY: the caller's promise is the callee's.
        return unsafe { copy_nonoverlapping(src, dst, len) };
    }
    // The common case by itself, so that it compiles to a jump and no stack frame. With one, copies of up to a page
    // were 5 to 20 % slower: a load from the stack seems to wait for streaming stores that are still under way to an
    // address with the same last twelve bits, and a page of them has all endings.
    if (dst.addr() | len).is_multiple_of(LINE) {
        // SAFETY: the caller's promise is the callee's; the destination is the start of a line.
        return unsafe { (kernel.copy_lines)(dst, src, len / LINE) };
    }
    // SAFETY: the caller's promise is the callee's.
    unsafe { stream_ragged(kernel, dst, src, len) }
}

/// Copies to a destination that starts or ends within a line.
///
/// # Safety
/// As for [`stream_with`].
#[inline(never)]
unsafe fn stream_ragged(kernel: &Kernel, dst: *mut u8, src: *const u8, len: usize) {
    let head = (dst.addr().wrapping_neg() % LINE).min(len);
    let lines = (len - head) / LINE;
    let tail_at = head + lines * LINE;
    // SAFETY: the three parts are the `len` bytes of both buffers, one behind the other; the middle one starts on a
    // line of the destination unless it is empty.
    unsafe {
        copy_nonoverlapping(src, dst, head);
        (kernel.copy_lines)(dst.add(head), src.add(head), lines);
        copy_nonoverlapping(src.add(tail_at), dst.add(tail_at), len - tail_at);
    }
}

/// # Safety
/// As for [`stream`], with `lines * LINE` bytes.
unsafe fn portable_copy_lines(dst: *mut u8, src: *const u8, lines: usize) {
    // SAFETY: the caller's promise is the callee's.
    unsafe { copy_nonoverlapping(src, dst, lines * LINE) }
}

/// A kernel of one vector width. A macro and not a generic function, because intrinsics are inlined only into functions
/// that enable their feature by name.
#[cfg(target_arch = "x86_64")]
macro_rules! kernel {
    ($name:ident, $feature:literal, $vector:ident, $zero:ident, $load:ident, $store:ident) => {
        mod $name {
            use super::LINE;
            use std::arch::x86_64::{$load, $store, $vector, $zero};

            /// A piece of less than a page gives the prefetcher nothing to learn from.
            const LEAST_PIECE_LINES: usize = 4096 / LINE;

            /// # Safety
            /// The processor has the feature; `src` is readable and `dst` writable for `lines * LINE` bytes, they do
            /// not overlap, and `dst` is the start of a line (unless `lines` is 0).
            #[target_feature(enable = $feature)]
            pub(super) unsafe fn copy_lines(dst: *mut u8, src: *const u8, lines: usize) {
                // SAFETY: the caller's promise is the callee's.
                unsafe {
                    match lines / LEAST_PIECE_LINES {
                        0 | 1 => copy_pieces::<1, 4>(dst, src, lines),
                        2 | 3 => copy_pieces::<2, 2>(dst, src, lines),
                        4 | 5 => copy_pieces::<4, 2>(dst, src, lines),
                        _ => copy_pieces::<6, 2>(dst, src, lines),
                    }
                }
            }

            /// Cuts the lines into `PIECES` of equal length, copies `STEP` lines of each in turn, and then the few
            /// lines left over. Not inlined: the short copies would get the stack frame that the long ones need.
            ///
            /// # Safety
            /// As for [`copy_lines`].
            #[inline(never)]
            #[target_feature(enable = $feature)]
            unsafe fn copy_pieces<const PIECES: usize, const STEP: usize>(dst: *mut u8, src: *const u8, lines: usize) {
                let piece = lines / (PIECES * STEP) * STEP;
                for line in (0..piece).step_by(STEP) {
                    for nth in 0..PIECES {
                        let at = (nth * piece + line) * LINE;
                        // SAFETY: nth < PIECES and line + STEP <= piece, so the step ends by PIECES * piece <= lines.
                        unsafe { copy_step::<STEP>(dst.add(at), src.add(at)) };
                    }
                }
                for line in PIECES * piece..lines {
                    // SAFETY: line < lines.
                    unsafe { copy_step::<1>(dst.add(line * LINE), src.add(line * LINE)) };
                }
            }

            /// Copies `STEP` lines, all loads before all stores.
            ///
            /// # Safety
            /// As for [`copy_lines`], with `STEP` lines.
            #[inline]
            #[target_feature(enable = $feature)]
            unsafe fn copy_step<const STEP: usize>(dst: *mut u8, src: *const u8) {
                const WIDTH: usize = size_of::<$vector>();
                let mut held = [[$zero(); LINE / WIDTH]; STEP];
                for (nth, vector) in held.as_flattened_mut().iter_mut().enumerate() {
                    // SAFETY: STEP lines have this many vectors; the load asks for no alignment.
                    *vector = unsafe { $load(src.add(nth * WIDTH).cast()) };
                }
                for (nth, vector) in held.as_flattened().iter().enumerate() {
                    // SAFETY: as above; `dst` is the start of a line, so each vector is aligned to its width.
                    unsafe { $store(dst.add(nth * WIDTH).cast(), *vector) };
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernel!(
    avx512,
    "avx512f",
    __m512i,
    _mm512_setzero_si512,
    _mm512_loadu_si512,
    _mm512_stream_si512
);
#[cfg(target_arch = "x86_64")]
kernel!(
    avx2,
    "avx2",
    __m256i,
    _mm256_setzero_si256,
    _mm256_loadu_si256,
    _mm256_stream_si256
);
#[cfg(target_arch = "x86_64")]
kernel!(
    sse2,
    "sse2",
    __m128i,
    _mm_setzero_si128,
    _mm_loadu_si128,
    _mm_stream_si128
);

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr::{null, null_mut};
    use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

    /// How a copy is called: past the check for short ones, so that a kernel sees every length, and as users call it.
    const CALLS: [unsafe fn(&Kernel, *mut u8, *const u8, usize); 2] = [stream_ragged, stream_with];

    /// Lengths around every place where the code takes another path.
    const LONG_LENGTHS: [usize; 17] = [
        1024, 2047, 2048, 2049, 4095, 4096, 8191, 8192, 8256, 12_288, 16_383, 16_384, 24_575, 24_576, 24_640, 65_536,
        100_001,
    ];

    /// The kernels that a test has to exercise on this processor.
    fn kernels_here() -> impl Iterator<Item = &'static Kernel> {
        KERNELS.iter().filter(|kernel| (kernel.runs_here)())
    }

    /// Bytes that differ from their neighbours, from those a line, a page or a piece away, and from the guards.
    fn pattern(len: usize) -> Vec<u8> {
        (0..len as u64)
            .map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
            .collect()
    }

    /// Copies between buffers at these distances from the start of a line; panics unless exactly `len` bytes changed.
    fn check(kernel: &Kernel, len: usize, dst_offset: usize, src_offset: usize) {
        const GUARD: u8 = 0xA5;
        let margin = 2 * LINE;
        for call in CALLS {
            let source = pattern(len + 2 * margin);
            let mut target = vec![GUARD; len + 2 * margin];
            let src = source.as_ptr().align_offset(LINE) + src_offset;
            let dst = target.as_ptr().align_offset(LINE) + dst_offset;
            // SAFETY: both offsets are below 2 * LINE, one margin, so the buffers hold `len` bytes from there.
            unsafe { call(kernel, target.as_mut_ptr().add(dst), source.as_ptr().add(src), len) };
            fence();
            let context = || {
                format!(
                    "{}: {len} bytes, target at {dst_offset}, source at {src_offset}",
                    kernel.name
                )
            };
            assert!(
                target[dst..dst + len] == source[src..src + len],
                "wrong bytes, {}",
                context()
            );
            let mut around = target[..dst].iter().chain(&target[dst + len..]);
            assert!(
                around.all(|byte| *byte == GUARD),
                "bytes outside were written, {}",
                context()
            );
        }
    }

    #[test]
    fn every_kernel_of_this_processor_is_found_and_the_fastest_is_chosen() {
        let names: Vec<_> = kernels_here().map(|kernel| kernel.name).collect();
        #[cfg(target_arch = "x86_64")]
        let expected: Vec<_> = [
            std::is_x86_feature_detected!("avx512f").then_some("avx512"),
            std::is_x86_feature_detected!("avx2").then_some("avx2"),
            Some("sse2"),
            Some("portable"),
        ]
        .into_iter()
        .flatten()
        .collect();
        #[cfg(not(target_arch = "x86_64"))]
        let expected = ["portable"];
        assert_eq!(names, expected);
        assert_eq!(kernel_name(), expected[0]);
    }

    #[test]
    fn every_kernel_copies_short_lengths_exactly() {
        for kernel in kernels_here() {
            for len in 0..=600 {
                for dst_offset in [0, 1, 8, 16, 31, 32, 48, 63] {
                    check(kernel, len, dst_offset, (len * 7 + dst_offset * 13) % LINE);
                }
            }
        }
    }

    #[test]
    fn every_kernel_copies_at_every_offset_within_a_line() {
        for kernel in kernels_here() {
            for offset in 0..LINE {
                check(kernel, 517, offset, 0);
                check(kernel, 517, 0, offset);
                check(kernel, 8_500, offset, (offset * 29 + 5) % LINE);
            }
        }
    }

    #[test]
    fn every_kernel_copies_long_lengths_exactly() {
        for kernel in kernels_here() {
            for len in LONG_LENGTHS.into_iter().chain([(1 << 20) + 13, 4 << 20]) {
                for (dst_offset, src_offset) in [(0, 0), (0, 1), (1, 0), (63, 17)] {
                    check(kernel, len, dst_offset, src_offset);
                }
            }
        }
    }

    #[test]
    fn a_length_of_zero_touches_neither_pointer() {
        for kernel in kernels_here() {
            // SAFETY: a length of 0 asks nothing of the pointers.
            unsafe { stream_with(kernel, null_mut(), null(), 0) };
        }
        // SAFETY: as above.
        unsafe { copy(null_mut(), null(), 0) };
    }

    /// Memory between two ranges that fault on any access.
    struct Fenced {
        map: *mut u8,
    }

    impl Fenced {
        const LEN: usize = 2 * Self::GUARD;
        /// A multiple of every page size in use.
        const GUARD: usize = 64 << 10;

        fn new() -> Self {
            // SAFETY: a fresh private map, of which the middle part is made accessible.
            unsafe {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                let map = libc::mmap(null_mut(), Self::LEN + 2 * Self::GUARD, libc::PROT_NONE, flags, -1, 0);
                assert_ne!(map, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
                let middle = map.cast::<u8>().add(Self::GUARD).cast();
                assert_eq!(libc::mprotect(middle, Self::LEN, libc::PROT_READ | libc::PROT_WRITE), 0);
                Fenced { map: map.cast() }
            }
        }

        fn bytes(&mut self) -> &mut [u8] {
            // SAFETY: the middle part is mapped, zeroed and lives as long as `self`.
            unsafe { std::slice::from_raw_parts_mut(self.map.add(Self::GUARD), Self::LEN) }
        }
    }

    impl Drop for Fenced {
        fn drop(&mut self) {
            // SAFETY: the map of `new`, unmapped once.
            unsafe { libc::munmap(self.map.cast(), Self::LEN + 2 * Self::GUARD) };
        }
    }

    #[test]
    fn no_kernel_reads_or_writes_outside_its_buffers() {
        let (mut source, mut target) = (Fenced::new(), Fenced::new());
        source.bytes().copy_from_slice(&pattern(Fenced::LEN));
        for kernel in kernels_here() {
            for len in (0..=600).step_by(7).chain(LONG_LENGTHS) {
                let end = Fenced::LEN - len;
                for (dst, src) in [(0, 0), (0, end), (end, 0), (end, end)] {
                    for call in CALLS {
                        let (source, target) = (source.bytes(), target.bytes());
                        target[dst..dst + len].fill(0);
                        // SAFETY: both ranges lie within their buffers, which are two maps.
                        unsafe { call(kernel, target[dst..].as_mut_ptr(), source[src..].as_ptr(), len) };
                        fence();
                        assert!(
                            target[dst..dst + len] == source[src..src + len],
                            "{}: {len} bytes",
                            kernel.name
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn bytes_are_visible_to_another_thread_once_they_are_published() {
        const LEN: usize = 32 << 10;
        const ROUNDS: usize = 200;
        let mut target = vec![0u8; LEN];
        let at = AtomicPtr::new(target.as_mut_ptr());
        let (published, seen) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let wait = |turn: &AtomicUsize, round| {
            while turn.load(Ordering::Acquire) != round {
                std::thread::yield_now();
            }
        };
        let mut stale = Vec::new(); // looked at in the end: a reader that panics would leave the writer waiting
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    let source = vec![round as u8; LEN];
                    // SAFETY: the reader looks only between `published` and `seen` of a round, this is before that.
                    unsafe { copy(at.load(Ordering::Relaxed), source.as_ptr(), LEN) };
                    published.store(round, Ordering::Release);
                    wait(&seen, round);
                }
            });
            for round in 1..=ROUNDS {
                wait(&published, round);
                // SAFETY: as above.
                let bytes = unsafe { std::slice::from_raw_parts(at.load(Ordering::Relaxed), LEN) };
                stale.extend(
                    bytes
                        .iter()
                        .position(|byte| *byte != round as u8)
                        .map(|byte| (round, byte)),
                );
                seen.store(round, Ordering::Release);
            }
        });
        assert_eq!(stale, [], "(round, offset of a byte of another round)");
    }
}
