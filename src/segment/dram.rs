//! DRAM that the library maps itself.
//!
//! Two ways: private anonymous memory, and a memfd, which other processes can map, too. A memfd is sealed against shrinking, as
//! memory that can be cut under a reader ends in a signal. Either way the pages stay out of core dumps, and a forked child must not
//! turn every later put of its parent into a copy-on-write fault: a memfd is shared anyway, private memory is not given to children.
//!
//! Huge pages are worth 15 to 35 % of the copies. Private memory asks for them by `MADV_HUGEPAGE`; a memfd tries, in this order, pages of
//! the hugetlb pool (`MFD_HUGETLB`), `MADV_COLLAPSE` when it is prefaulted, and the host's setting for shared memory. The segment
//! says which of them it got; advice that the kernel is set to ignore counts as small pages.

use std::ffi::CStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::FallocateFlags;
use serde::{Deserialize, Serialize};

use super::view::{HUGE_PAGE, View};
use crate::error::{Error, Result, invalid, words};
use crate::log::{Level, say};

/// How the memory is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Private anonymous memory: this process's alone.
    Private,
    /// A sealed memfd: can be shared with another process.
    Memfd,
}

/// What the caller wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wishes {
    pub(crate) kind: Kind,
    pub(crate) huge_pages: bool,
    pub(crate) prefault: bool,
    pub(crate) numa_node: Option<u32>,
}

/// Where huge pages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Pages {
    /// Pages of 4096 bytes.
    Small,
    /// The kernel was asked and gives them where it can, as pages are touched.
    Advised,
    /// From the hugetlb pool, all of them.
    Hugetlb,
    /// Joined by `MADV_COLLAPSE`, all of them.
    Collapsed,
}

/// What a mapping got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) kind: Kind,
    pub(crate) pages: Pages,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Private => "private memory",
            Kind::Memfd => "a memfd",
        };
        let pages = match self.pages {
            Pages::Small => "small pages",
            Pages::Advised => "huge pages as they are touched",
            Pages::Hugetlb => "hugetlb pages",
            Pages::Collapsed => "collapsed huge pages",
        };
        write!(f, "{kind} of {pages}")
    }
}

/// A mapping that goes when it is dropped.
pub(crate) struct Mapping {
    map: Map,
    /// The mapping's first byte that is used: the start of a huge page where these are wanted.
    base: usize,
    report: Report,
    /// Kept open for processes that map it too.
    file: Option<Arc<File>>,
}

/// Addresses of this process that have the memory.
enum Map {
    Private(MmapRaw),
    Memfd(View),
}

/// The seals of a memfd: its size is final, and so are the seals.
const SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
/// Threads that touch pages when a segment is prefaulted: the kernel zeroes them, a page at a time a thread.
const PREFAULT_THREADS: usize = 8;

impl Mapping {
    /// Maps `capacity` bytes, zeroed.
    pub(crate) fn new(capacity: u64, wishes: Wishes) -> Result<Mapping> {
        let mapping = match wishes.kind {
            Kind::Private => Mapping::private(capacity, wishes.huge_pages),
            Kind::Memfd => Mapping::memfd(capacity, wishes.huge_pages),
        };
        let mut mapping = mapping.map_err(|error| cannot_map(capacity, &error))?;
        if let Some(node) = wishes.numa_node {
            mapping.prefer_node(node)?;
        }
        if wishes.prefault {
            mapping.prefault().map_err(|error| cannot_map(capacity, &error))?;
            mapping.collapse(wishes);
        }
        Ok(mapping)
    }

    /// Address of the first byte.
    pub(crate) fn base(&self) -> usize {
        self.base
    }

    pub(crate) fn report(&self) -> Report {
        self.report
    }

    /// The memfd, for a process that is to map it too.
    pub(crate) fn file(&self) -> Option<&Arc<File>> {
        self.file.as_ref()
    }

    /// Gives the pages of a memfd back, which others may have mapped for some time yet: they stay mapped there, and read as zeros.
    pub(crate) fn empty(&self) {
        let Some(file) = &self.file else { return };
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(error) = rustix::fs::fallocate(file, mode, 0, self.map.length() as u64) {
            say!(
                Level::Warn,
                "memory of a segment that has gone stays with the processes that have it mapped: {error}"
            );
        }
    }

    fn private(capacity: u64, huge_pages: bool) -> io::Result<Mapping> {
        let slack = if huge_pages { HUGE_PAGE } else { 0 };
        let length = usize_of(capacity.saturating_add(slack))?;
        let map = MmapRaw::from(MmapOptions::new().len(length).map_anon()?);
        map.advise(Advice::DontFork)?;
        map.advise(Advice::DontDump)?;
        let base = map.as_mut_ptr().expose_provenance();
        let base = if huge_pages {
            base.next_multiple_of(HUGE_PAGE as usize)
        } else {
            base
        };
        let advised = huge_pages && map.advise(Advice::HugePage).is_ok() && kernel_heeds_advice(c"enabled");
        let pages = if advised { Pages::Advised } else { Pages::Small };
        Ok(Mapping {
            map: Map::Private(map),
            base,
            report: Report {
                kind: Kind::Private,
                pages,
            },
            file: None,
        })
    }

    fn memfd(capacity: u64, huge_pages: bool) -> io::Result<Mapping> {
        if capacity > physical_memory() {
            // A memfd of any size can be made; its pages would be missing when they are written.
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        if huge_pages
            && capacity.is_multiple_of(HUGE_PAGE)
            && let Ok((map, file)) = map_memfd(capacity, libc::MFD_HUGETLB | libc::MFD_HUGE_2MB)
        {
            return Ok(Mapping::of_memfd(map, file, Pages::Hugetlb));
        }
        let (map, file) = map_memfd(capacity, 0)?;
        let advised = huge_pages
            && map.advise(libc::MADV_HUGEPAGE, 0, map.length()).is_ok()
            && kernel_heeds_advice(c"shmem_enabled");
        let pages = if advised { Pages::Advised } else { Pages::Small };
        Ok(Mapping::of_memfd(map, file, pages))
    }

    fn of_memfd(map: View, file: File, pages: Pages) -> Mapping {
        Mapping {
            base: map.base(),
            map: Map::Memfd(map),
            report: Report {
                kind: Kind::Memfd,
                pages,
            },
            file: Some(Arc::new(file)),
        }
    }

    /// Asks for pages of this NUMA node; others serve when it has none left.
    fn prefer_node(&self, node: u32) -> Result<()> {
        let mut mask = [0u64; 16];
        let Some(word) = mask.get_mut(node as usize / 64) else {
            return Err(invalid!("numa node {node}: must be below 1024"));
        };
        *word = 1 << (node % 64);
        // SAFETY: the range is this mapping's own, the mask has the length that is given and is only read.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.map.start(),
                self.map.length(),
                libc::MPOL_PREFERRED,
                mask.as_ptr(),
                mask.len() * 64 + 1,
                0,
            )
        };
        if result == 0 {
            return Ok(());
        }
        Err(invalid!(
            "numa node {node}: the kernel refuses it: {}",
            io::Error::last_os_error()
        ))
    }

    /// Touches every page, on several threads.
    fn prefault(&self) -> io::Result<()> {
        let threads = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(PREFAULT_THREADS);
        let share = self.map.length().div_ceil(threads).next_multiple_of(HUGE_PAGE as usize);
        std::thread::scope(|scope| {
            let populate = |start: usize| {
                let length = share.min(self.map.length() - start);
                self.map.populate(start, length)
            };
            let starts = (0..self.map.length()).step_by(share);
            let running: Vec<_> = starts
                .map(
                    |start| match std::thread::Builder::new().spawn_scoped(scope, move || populate(start)) {
                        Ok(thread) => Ok(thread),
                        // No thread to be had: this one does the work.
                        Err(_) => Err(populate(start)),
                    },
                )
                .collect();
            running.into_iter().try_for_each(|part| match part {
                Ok(thread) => thread
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("a prefault thread panicked"))),
                Err(done) => done,
            })
        })
    }

    /// Joins the small pages of a prefaulted memfd to huge ones, where the kernel does that.
    fn collapse(&mut self, wishes: Wishes) {
        if !wishes.huge_pages || wishes.kind != Kind::Memfd || self.report.pages == Pages::Hugetlb {
            return;
        }
        if let Map::Memfd(map) = &self.map
            && map.advise(libc::MADV_COLLAPSE, 0, map.length()).is_ok()
        {
            self.report.pages = Pages::Collapsed;
        }
    }
}

impl Map {
    fn start(&self) -> usize {
        match self {
            Map::Private(map) => map.as_mut_ptr().addr(),
            Map::Memfd(map) => map.base(),
        }
    }

    fn length(&self) -> usize {
        match self {
            Map::Private(map) => map.len(),
            Map::Memfd(map) => map.length(),
        }
    }

    /// Touches the pages of a part.
    fn populate(&self, start: usize, length: usize) -> io::Result<()> {
        match self {
            Map::Private(map) => map.advise_range(Advice::PopulateWrite, start, length),
            Map::Memfd(map) => map.advise(libc::MADV_POPULATE_WRITE, start, length),
        }
    }
}

fn cannot_map(capacity: u64, error: &io::Error) -> Error {
    Error::OutOfMemory(words!("segment of {capacity} bytes can't be mapped: {error}"))
}

fn usize_of(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))
}

fn map_memfd(capacity: u64, flags: libc::c_uint) -> io::Result<(View, File)> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | flags;
    // SAFETY: the name is a C string; the result is checked.
    let descriptor = unsafe { libc::memfd_create(c"mmc".as_ptr(), flags) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    file.set_len(capacity)?;
    // SAFETY: the descriptor is open; sealing takes an integer.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let map = View::new(&file, usize_of(capacity)?)?;
    map.advise(libc::MADV_DONTDUMP, 0, map.length())?;
    Ok((map, file))
}

/// Whether the kernel is set to act on `MADV_HUGEPAGE`.
fn kernel_heeds_advice(setting: &CStr) -> bool {
    let path = format!("/sys/kernel/mm/transparent_hugepage/{}", setting.to_string_lossy());
    std::fs::read_to_string(path).is_ok_and(|text| {
        ["[always]", "[madvise]", "[advise]", "[within_size]", "[force]"]
            .iter()
            .any(|word| text.contains(word))
    })
}

fn physical_memory() -> u64 {
    // SAFETY: two numbers from the C library.
    let (pages, size) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    u64::try_from(pages)
        .unwrap_or(0)
        .saturating_mul(u64::try_from(size).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 8 << 20;

    fn wishes(kind: Kind) -> Wishes {
        Wishes {
            kind,
            huge_pages: true,
            prefault: false,
            numa_node: None,
        }
    }

    /// The lines that the kernel has about the mapping at `address`.
    fn kernel_view(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = maps.lines().skip_while(|line| {
            let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
            !range.is_some_and(|(start, end)| {
                let number = |text| usize::from_str_radix(text, 16);
                matches!((number(start), number(end)), (Ok(start), Ok(end)) if (start..end).contains(&address))
            })
        });
        let head = lines.next().unwrap().to_owned();
        let rest: Vec<&str> = lines
            .take_while(|line| !line.split(' ').next().unwrap().contains('-'))
            .collect();
        format!("{head}\n{}", rest.join("\n"))
    }

    #[test]
    fn both_kinds_stay_out_of_core_dumps_and_private_memory_out_of_children() {
        for (kind, flags) in [(Kind::Private, vec!["dd", "dc"]), (Kind::Memfd, vec!["dd"])] {
            let mapping = Mapping::new(SIZE, wishes(kind)).unwrap();
            let view = kernel_view(mapping.base());
            let line = view.lines().find(|line| line.starts_with("VmFlags:")).unwrap();
            for flag in flags {
                assert!(line.split(' ').any(|word| word == flag), "{kind:?} {flag}: {view}");
            }
        }
    }

    #[test]
    fn a_memfd_cannot_be_cut_or_unsealed() {
        let mapping = Mapping::new(SIZE, wishes(Kind::Memfd)).unwrap();
        let file = mapping.file().unwrap();
        assert!(file.set_len(SIZE - 4096).is_err());
        assert!(file.set_len(SIZE + 4096).is_err());
        // SAFETY: sealing takes an integer.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_WRITE) };
        assert_eq!(result, -1);
    }

    #[test]
    fn prefaulted_memory_is_resident_at_once_and_other_memory_is_not() {
        for kind in [Kind::Private, Kind::Memfd] {
            for prefault in [false, true] {
                let mapping = Mapping::new(
                    SIZE,
                    Wishes {
                        prefault,
                        ..wishes(kind)
                    },
                )
                .unwrap();
                let view = kernel_view(mapping.base());
                let line = view.lines().find(|line| line.starts_with("Rss:")).unwrap();
                let resident: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
                assert_eq!(resident * 1024 >= SIZE, prefault, "{kind:?}: {line}");
            }
        }
    }

    #[test]
    fn huge_pages_that_are_reported_are_there() {
        let mapping = Mapping::new(
            SIZE,
            Wishes {
                prefault: true,
                ..wishes(Kind::Private)
            },
        )
        .unwrap();
        assert!((mapping.base() as u64).is_multiple_of(HUGE_PAGE));
        let view = kernel_view(mapping.base());
        let huge = view.lines().find(|line| line.starts_with("AnonHugePages:")).unwrap();
        let is_huge = !huge.contains(" 0 kB");
        assert_eq!(mapping.report().pages == Pages::Advised, is_huge, "{huge}");
    }

    #[test]
    fn memory_that_the_machine_does_not_have_is_refused() {
        for kind in [Kind::Private, Kind::Memfd] {
            let error = Mapping::new(1 << 46, wishes(kind)).err().unwrap();
            assert!(matches!(error, Error::OutOfMemory(_)), "{error}");
            assert!(error.to_string().contains("segment of 70368744177664 bytes"), "{error}");
        }
    }

    #[test]
    fn a_node_that_does_not_exist_is_refused_by_name() {
        for node in [1000, 5000] {
            let error = Mapping::new(
                SIZE,
                Wishes {
                    numa_node: Some(node),
                    ..wishes(Kind::Private)
                },
            )
            .err()
            .unwrap();
            assert!(error.to_string().contains(&format!("numa node {node}")), "{error}");
        }
    }
}
