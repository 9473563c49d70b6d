//! The name of an object: 1 to 256 bytes of UTF-8 without control characters.
//!
//! A [`Key`] can only hold a valid one, so the check is made once, at the boundary. Control characters are refused because a
//! newline would forge a line of the admin port's listing, and a NUL would cut a key in two for a reader in C.
//! The hash is XXH3 over the bytes, seeded a store at random, so that nobody can choose keys that fall together.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::{Result, invalid};

/// The longest key, in bytes.
pub(crate) const MAX_KEY_BYTES: usize = 256;

/// Bytes of a name of the library's own: a mark and a number.
pub(crate) const UNSEEN_BYTES: usize = 9;
/// A control character.
const UNSEEN_MARK: u8 = 1;

/// The `number`th name of the library's own, for [`Key::unseen`].
pub(crate) fn unseen_name(number: u64) -> [u8; UNSEEN_BYTES] {
    let mut name = [UNSEEN_MARK; UNSEEN_BYTES];
    name[1..].copy_from_slice(&number.to_le_bytes());
    name
}

/// A valid key, borrowed from whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key<'a>(&'a [u8]);

impl<'a> Key<'a> {
    /// Checks `bytes`.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Key<'a>> {
        if bytes.is_empty() || bytes.len() > MAX_KEY_BYTES {
            return Err(invalid!(
                "key of {} bytes: must be 1 to {MAX_KEY_BYTES} bytes",
                bytes.len()
            ));
        }
        if !is_printable_ascii(bytes) {
            check_text(bytes)?;
        }
        Ok(Key(bytes))
    }

    /// A name of the library's own, under a byte that no valid key begins with.
    pub(crate) fn unseen(name: &'a [u8; UNSEEN_BYTES]) -> Key<'a> {
        debug_assert!(name[0] == UNSEEN_MARK);
        Key(name)
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn hash(&self, seed: u64) -> u64 {
        xxh3_64_with_seed(self.0, seed)
    }
}

/// The usual key: digits and letters. No early exit, and sixteen bytes at a time, so that it compiles to vector instructions.
#[inline]
fn is_printable_ascii(bytes: &[u8]) -> bool {
    let is_other = |byte: u8| byte.wrapping_sub(0x20) >= 0x7f - 0x20;
    let (blocks, rest) = bytes.as_chunks::<16>();
    let mut others = [false; 16];
    for block in blocks {
        for (other, byte) in others.iter_mut().zip(block) {
            *other |= is_other(*byte);
        }
    }
    !others.contains(&true) && !rest.iter().fold(false, |any, byte| any | is_other(*byte))
}

#[cold]
fn check_text(bytes: &[u8]) -> Result<()> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| invalid!("key is not UTF-8: bad byte at offset {}", error.valid_up_to()))?;
    match text.char_indices().find(|(_, c)| c.is_control()) {
        Some((offset, c)) => Err(invalid!(
            "key has the control character U+{:04X} at offset {offset}",
            c as u32
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_keys_are_taken() {
        for key in ["a", "key 1/~", "层-7", "\u{a0}", &"x".repeat(256)] {
            assert!(Key::new(key.as_bytes()).is_ok(), "{key:?}");
        }
    }

    #[test]
    fn other_keys_are_refused_with_the_reason() {
        let long = "x".repeat(257);
        let cases: [(&[u8], &str); 7] = [
            (b"", "key of 0 bytes"),
            (long.as_bytes(), "key of 257 bytes"),
            (b"a\nb", "U+000A at offset 1"),
            (b"a\0", "U+0000 at offset 1"),
            (b"\x7f", "U+007F at offset 0"),
            ("ab\u{85}".as_bytes(), "U+0085 at offset 2"),
            (b"ok\xff", "bad byte at offset 2"),
        ];
        for (key, reason) in cases {
            let message = Key::new(key).unwrap_err().to_string();
            assert!(message.contains(reason), "{message}");
        }
    }
}
