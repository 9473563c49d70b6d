use super::*;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A file in memory that asks a script first, which may refuse, or wait.
pub(crate) struct Scripted<F> {
    bytes: Mutex<Vec<u8>>,
    script: F,
}

impl<F: Fn(Direction, u64) -> io::Result<()> + Send + Sync + 'static> Scripted<F> {
    /// A segment's file of `capacity` bytes.
    pub(crate) fn file(capacity: u64, script: F) -> File {
        let bytes = Mutex::new(vec![0; capacity as usize]);
        File::over(Box::new(Scripted { bytes, script }), Report { is_direct: false }).unwrap()
    }
}

impl<F: Fn(Direction, u64) -> io::Result<()> + Send + Sync> Positional for Scripted<F> {
    unsafe fn read(&self, memory: *mut u8, length: usize, offset: u64) -> io::Result<usize> {
        (self.script)(Direction::FromSegment, offset)?;
        let bytes = self.bytes.lock().unwrap();
        // Not all at once, as a file may do.
        let length = length.min(60_000);
        let source = &bytes[offset as usize..][..length];
        // SAFETY: promised by the caller.
        unsafe { memory.copy_from_nonoverlapping(source.as_ptr(), length) };
        Ok(length)
    }

    unsafe fn write(&self, memory: *const u8, length: usize, offset: u64) -> io::Result<usize> {
        (self.script)(Direction::ToSegment, offset)?;
        let mut bytes = self.bytes.lock().unwrap();
        let length = length.min(60_000);
        let target = &mut bytes[offset as usize..][..length];
        // SAFETY: promised by the caller.
        unsafe { memory.copy_to_nonoverlapping(target.as_mut_ptr(), length) };
        Ok(length)
    }
}

/// A path that goes with the test.
pub(crate) struct TestPath(pub(crate) PathBuf);

impl TestPath {
    pub(crate) fn new() -> TestPath {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        TestPath(std::env::temp_dir().join(format!("mmc-test-{}-{number}", std::process::id())))
    }
}

impl Drop for TestPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn message(result: Result<File>) -> String {
    result.err().expect("it is refused").to_string()
}

fn run(file: &File, direction: Direction, bounce: &Bounce, offset: u64) -> Vec<Part> {
    let parts: Vec<Part> = parts_of(direction, 7, offset, bounce.memory(), bounce.length() as u64).collect();
    // SAFETY: the bounce is there until it returns.
    unsafe { file.run(&parts) };
    parts
}

fn fill(bounce: &Bounce, seed: u8) {
    for at in 0..bounce.length() {
        // SAFETY: inside the bounce.
        unsafe {
            bounce
                .memory()
                .add(at)
                .write((at as u8).wrapping_mul(31) ^ (at >> 12) as u8 ^ seed)
        };
    }
}

#[test]
fn what_was_written_is_read_again_in_parts_and_after_it_was_opened_again() {
    let path = TestPath::new();
    let capacity = 8 * PART;
    let (written, read) = (
        Bounce::new(3 * PART + 2 * UNIT).unwrap(),
        Bounce::new(3 * PART + 2 * UNIT).unwrap(),
    );
    fill(&written, 3);
    let file = File::open(&path.0, capacity, false).unwrap();
    let parts = run(&file, Direction::ToSegment, &written, 5 * UNIT);
    assert_eq!(parts.len(), 4);
    assert!(
        parts
            .iter()
            .all(|part| part.failure.get().is_none() && part.element == 7)
    );
    drop(file);
    let file = File::open(&path.0, capacity, false).unwrap();
    run(&file, Direction::FromSegment, &read, 5 * UNIT);
    let length = written.length() as u64;
    assert!(written.bytes(length) == read.bytes(length));
}

#[test]
fn a_file_has_its_size_from_the_start_and_is_one_segments() {
    let path = TestPath::new();
    let file = File::open(&path.0, 4 * UNIT, false).unwrap();
    assert_eq!(std::fs::metadata(&path.0).unwrap().len(), 4 * UNIT);
    assert!(message(File::open(&path.0, 4 * UNIT, false)).contains("another segment's"));
    drop(file);
    let other = message(File::open(&path.0, 8 * UNIT, false));
    assert!(
        other.contains("of 16384 bytes: must have the segment's 32768 bytes"),
        "{other}"
    );
    drop(File::open(&path.0, 4 * UNIT, false).unwrap());
    assert!(message(File::open(&std::env::temp_dir(), UNIT, false)).contains("can't be opened"));
    assert!(message(File::open(Path::new("/dev/null"), UNIT, false)).contains("regular file"));
}

#[test]
fn a_file_that_does_not_fit_its_file_system_is_refused_and_left_empty() {
    let path = TestPath::new();
    let text = message(File::open(&path.0, 1 << 55, false));
    assert!(text.contains("no room for"), "{text}");
    assert_eq!(std::fs::metadata(&path.0).unwrap().len(), 0);
}

#[test]
fn a_part_that_fails_says_so_and_the_others_are_done() {
    let file = Scripted::file(8 * PART, |_, offset| match offset {
        PART => Err(io::Error::from_raw_os_error(libc::EIO)),
        _ => Ok(()),
    });
    let bounce = Bounce::new(4 * PART).unwrap();
    let parts = run(&file, Direction::ToSegment, &bounce, 0);
    let failed: Vec<u64> = parts
        .iter()
        .filter(|part| part.failure.get().is_some())
        .map(|part| part.offset)
        .collect();
    assert_eq!(failed, [PART]);
}

#[test]
fn calls_of_many_threads_share_the_files_threads() {
    let file = Scripted::file(64 * PART, |_, _| Ok(()));
    std::thread::scope(|scope| {
        for number in 0..4u8 {
            let file = &file;
            scope.spawn(move || {
                let offset = u64::from(number) * 8 * PART;
                let (written, read) = (Bounce::new(5 * PART).unwrap(), Bounce::new(5 * PART).unwrap());
                for round in 0..20 {
                    fill(&written, number * 20 + round);
                    run(file, Direction::ToSegment, &written, offset);
                    run(file, Direction::FromSegment, &read, offset);
                    assert!(written.bytes(5 * PART) == read.bytes(5 * PART));
                }
            });
        }
    });
}

#[test]
fn a_panic_in_a_part_is_a_failure_of_it() {
    let file = Scripted::file(8 * PART, |_, offset| {
        assert!(offset != 2 * PART, "a panic that is wanted");
        Ok(())
    });
    let bounce = Bounce::new(4 * PART).unwrap();
    let parts = run(&file, Direction::FromSegment, &bounce, 0);
    assert_eq!(parts.iter().filter(|part| part.failure.get().is_some()).count(), 1);
}
