//! Registering, listing and unregistering memory.

use std::ffi::c_void;

use super::boundary::guard;
use super::convert::{
    Out, check_reserved, medium_from, medium_number, put_out, read, require_out, switch_from, text_from,
};
use super::handle;
use super::lifetime::memory_from;
use super::types::{
    MMC_COPY_FROM_SEGMENT, MMC_COPY_TO_SEGMENT, MMC_ERR_FAILED, MMC_MEMORY_MEMFD, MMC_MEMORY_PRIVATE,
    MMC_PAGES_ADVISED, MMC_PAGES_COLLAPSED, MMC_PAGES_HUGETLB, MMC_PAGES_SMALL, mmc_copy_operation, mmc_segment_info,
    mmc_segment_options, mmc_store,
};
use crate::config::Memory;
use crate::error::{Error, Result, invalid};
use crate::segment::Medium;
use crate::segment::device::{CopyOperation, Device, Direction};
use crate::segment::dram::{Kind, Pages, Wishes};
use crate::store::report::SegmentView;
use crate::store::segments::Plan;
use crate::store::{FileSource, Source};

/// Registers a segment.
///
/// `options`: what it is to be; borrowed for the call. Memory of the host in it must stay valid, and be used by nobody else, until the
/// segment is unregistered or the store closed. `address`: where the segment's pool address goes, which names it from then on; it is given
/// once and never again while the store lives. May be null.
///
/// Returns MMC_OK; MMC_ERR_INVALID_PARAM, with a message that says which, for an unknown medium, a rank over 65535, a capacity that is
/// zero or no multiple of 4096, a base that is null, unaligned or overlaps another segment, HBM without a callback, SSD without a file
/// or with one that is another segment's, no regular file, or of another size than 0 and the segment's; MMC_ERR_IO when the file can't be
/// opened; MMC_ERR_OUT_OF_MEMORY when the memory can't be mapped; MMC_ERR_NO_SPACE when the file system has no room for the file, the store
/// has had 1048576 segments or no pool addresses are left. Blocks while memory is touched, with `prefault`, and while a file gets its blocks. Any
/// thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_register_segment(
    store: *mut mmc_store,
    options: *const mmc_segment_options,
    address: *mut u64,
) -> i32 {
    guard("mmc_register_segment", || {
        let entered = handle::enter(store.cast())?;
        // SAFETY: the caller gives null or its struct.
        let options = unsafe { read(options)? }.ok_or_else(|| invalid!("options is null"))?;
        let (plan, source) = plan_from(&options)?;
        let registered = entered.pool().register_segment(&plan, source)?;
        // SAFETY: null or the caller's to write.
        unsafe { put_out(address, registered) };
        Ok(())
    })
}

/// Unregisters the segment at the pool address `address`.
///
/// Its copies are dropped, and objects with no other copy are gone; copies in flight are waited for; then the host may take its memory
/// back, and the library's is unmapped.
///
/// Returns MMC_OK; MMC_ERR_BUSY, with nothing changed, while a pin, lease or reservation is in it; MMC_ERR_NOT_FOUND when no segment is
/// registered there. Blocks until calls that read or write in it are done; so it must not be called from a copy callback. Any other thread.
/// Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_unregister_segment(store: *mut mmc_store, address: u64) -> i32 {
    guard("mmc_unregister_segment", || {
        handle::enter(store.cast())?.pool().unregister_segment(address)
    })
}

/// Lists the segments by medium, rank and address.
///
/// `infos`: an array of `capacity` elements, the first with its `struct_size` set; may be null when `capacity` is 0. `count`: where the
/// number of segments goes, which may be more than `capacity`: then that many were written and the rest left out.
///
/// Returns MMC_OK or MMC_ERR_INVALID_PARAM. Never blocks; any thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_list_segments(
    store: *mut mmc_store,
    infos: *mut mmc_segment_info,
    capacity: usize,
    count: *mut usize,
) -> i32 {
    guard("mmc_list_segments", || {
        let entered = handle::enter(store.cast())?;
        require_out("count", count)?;
        // SAFETY: the caller gives `capacity` structs of the size that the first one says.
        let out = unsafe { Out::new(infos, capacity)? };
        let mut segments = 0;
        entered.pool().each_segment(|segment| {
            if segments < capacity {
                out.write(segments, &info_of(&segment));
            }
            segments += 1;
        })?;
        // SAFETY: not null, and the caller's to write.
        unsafe { put_out(count, segments) };
        Ok(())
    })
}

fn plan_from(options: &mmc_segment_options) -> Result<(Plan, Source)> {
    check_reserved("mmc_segment_options", options.reserved)?;
    let Some(medium) = medium_from(options.medium)? else {
        return Err(invalid!(
            "medium is not set: must be MMC_MEDIUM_HBM (1), MMC_MEDIUM_DRAM (2) or MMC_MEDIUM_SSD (3)"
        ));
    };
    // SAFETY: the caller gives null or a C string.
    let path = unsafe { text_from("path", options.path)? };
    let plan = Plan {
        medium,
        rank: options.rank,
        capacity: options.capacity,
    };
    let base = options.base.expose_provenance();
    match (medium, path) {
        (Medium::Ssd, None) => return Err(invalid!("path is null: an SSD segment needs a file")),
        (Medium::Ssd, Some(_)) if base != 0 || options.copy.is_some() => {
            return Err(invalid!(
                "base and copy must be null for an SSD segment: its memory is a file"
            ));
        }
        (Medium::Ssd, Some(path)) => return Ok((plan, Source::File(FileSource::Path(path.into())))),
        (_, Some(path)) => {
            return Err(invalid!(
                "path {path:?} for a {} segment: only SSD has a file",
                medium.name()
            ));
        }
        (_, None) => {}
    }
    let source = match (options.copy, base) {
        (None, 0) => Source::Map(Wishes {
            kind: match memory_from(options.memory)?.unwrap_or_default() {
                Memory::Private => Kind::Private,
                Memory::Memfd => Kind::Memfd,
            },
            huge_pages: switch_from("huge_pages", options.huge_pages)?.unwrap_or(true),
            prefault: switch_from("prefault", options.prefault)?.unwrap_or(false),
            numa_node: options.numa_node.checked_sub(1),
        }),
        (None, base) => Source::Host(base),
        (Some(copy), base) => Source::Device(
            base,
            Box::new(HostDevice {
                copy,
                context: options.context,
            }),
        ),
    };
    Ok((plan, source))
}

fn info_of(segment: &SegmentView) -> mmc_segment_info {
    let (memory, pages) = match segment.report {
        None => (0, 0),
        Some(report) => (
            match report.kind {
                Kind::Private => MMC_MEMORY_PRIVATE,
                Kind::Memfd => MMC_MEMORY_MEMFD,
            },
            match report.pages {
                Pages::Small => MMC_PAGES_SMALL,
                Pages::Advised => MMC_PAGES_ADVISED,
                Pages::Hugetlb => MMC_PAGES_HUGETLB,
                Pages::Collapsed => MMC_PAGES_COLLAPSED,
            },
        ),
    };
    mmc_segment_info {
        struct_size: 0,
        medium: medium_number(segment.medium),
        rank: segment.rank,
        pages,
        address: segment.address,
        capacity: segment.capacity,
        allocated: segment.allocated,
        memory,
        reserved: 0,
    }
}

/// The host's callback and what it wants to be given.
struct HostDevice {
    copy: unsafe extern "C" fn(*mut c_void, *const mmc_copy_operation, usize, u32, *mut c_void) -> i32,
    context: *mut c_void,
}

// SAFETY: the header says that any thread may call the callback, several at once; the context is the host's to share.
unsafe impl Send for HostDevice {}
// SAFETY: as above.
unsafe impl Sync for HostDevice {}

impl Device for HostDevice {
    fn copy(&self, operations: &[CopyOperation], direction: Direction, stream: usize) -> Result<()> {
        let direction = match direction {
            Direction::ToSegment => MMC_COPY_TO_SEGMENT,
            Direction::FromSegment => MMC_COPY_FROM_SEGMENT,
        };
        let stream = std::ptr::with_exposed_provenance_mut(stream);
        // SAFETY: the two operation types have the same layout; the host promised a function that may be called so.
        let code = unsafe {
            (self.copy)(
                self.context,
                operations.as_ptr().cast(),
                operations.len(),
                direction,
                stream,
            )
        };
        match code {
            0 => Ok(()),
            // Codes of the library are negative, so a device's own positive one can't be passed on.
            code => Err(Error::Callback(if code < 0 { code } else { MMC_ERR_FAILED }, code)),
        }
    }
}
