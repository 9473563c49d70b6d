//! Settings of a store that other processes attach to: where, and who may.
//!
//! **Where.** An address is `unix:` and the absolute path of a socket. The kernel keeps that path in 108 bytes with its end, so a longer one
//! is refused here, by its limit, and not by the call that binds it.
//!
//! **Who.** Two things are asked of a process. The mode of the socket's file says who can reach it, as for any other file; it is octal in text,
//! because nobody reads modes in tens. And the user of the process must be the owner's own, or among the users, or one of its groups among
//! the groups, that are listed. They are listed by number: the names of users are known to each machine, container and directory service in
//! its own way, and asking them may block.

use std::path::Path;

use super::{Checked, parse_number};

/// Permission bits of the socket's file, unless they are set: the owner's user only.
pub(super) const DEFAULT_MODE: u32 = 0o600;
/// Read, write and execute, of user, group and others.
pub(super) const MAX_MODE: u32 = 0o777;
/// Milliseconds that a segment waits for one in its place, unless they are set: a minute is enough for an engine to be started again.
pub(super) const DEFAULT_WAIT_MS: u64 = 60_000;
/// A day.
pub(super) const MAX_WAIT_MS: u32 = 86_400_000;

const SCHEME: &str = "unix:";
/// `sun_path` of `sockaddr_un` has 108 bytes, the last one for the terminating zero.
const MAX_SOCKET_PATH_BYTES: usize = 107;
/// They are looked through for each process that attaches.
const MAX_IDS: usize = 64;
/// The number above is what the kernel says of a user that has none.
const MAX_ID: u32 = u32::MAX - 1;

/// The path of the socket of an address.
pub(crate) fn socket_path(address: &str) -> Checked<&Path> {
    match address.strip_prefix(SCHEME) {
        Some(path) if path.starts_with('/') && path.len() <= MAX_SOCKET_PATH_BYTES && !path.contains('\0') => {
            Ok(Path::new(path))
        }
        _ => Err(format!(
            "must be unix:/path, with an absolute path of at most {MAX_SOCKET_PATH_BYTES} bytes"
        )),
    }
}

/// An address to attach at; the empty text stays empty.
pub(super) fn parse_share(text: &str) -> Checked<String> {
    if !text.is_empty() {
        socket_path(text)?;
    }
    Ok(text.to_string())
}

/// Permission bits from octal text.
pub(super) fn parse_mode(text: &str) -> Checked<u32> {
    // `from_str_radix` alone would take a plus sign.
    let mode = text
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| u32::from_str_radix(text, 8).ok())
        .flatten();
    check_mode(mode.unwrap_or(0))
}

/// Permission bits that give something to somebody.
pub(super) fn check_mode(mode: u32) -> Checked<u32> {
    match mode {
        1..=MAX_MODE => Ok(mode),
        _ => Err(format!("must be 1 to {MAX_MODE:04o} octal")),
    }
}

/// Numbers of users or groups between commas; of the empty text, none.
pub(crate) fn parse_ids(text: &str) -> Checked<Vec<u32>> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let ids: Checked<Vec<u32>> = text
        .split(',')
        // One more than is allowed is enough to see that it is too many.
        .take(MAX_IDS + 1)
        .map(|id| parse_number(id.trim(), 0, MAX_ID))
        .collect();
    let ids = ids.map_err(|_| wrong_ids())?;
    check_ids(&ids).map(|()| ids)
}

/// Whether these users or groups are not too many, and each can be one.
pub(super) fn check_ids(ids: &[u32]) -> Checked<()> {
    match ids.len() <= MAX_IDS && ids.iter().all(|&id| id <= MAX_ID) {
        true => Ok(()),
        false => Err(wrong_ids()),
    }
}

fn wrong_ids() -> String {
    format!("must be at most {MAX_IDS} numbers of 0 to {MAX_ID}, with commas between them")
}

/// What `parse_ids` reads.
pub(crate) fn text_of_ids(ids: &[u32]) -> String {
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    ids.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_absolute_path_of_a_socket() {
        let longest = format!("unix:/{}", "s".repeat(106));
        let too_long = format!("unix:/{}", "s".repeat(107));
        for address in ["unix:/run/mmc.sock", "unix:/a b", "unix:/é", &longest] {
            assert_eq!(socket_path(address), Ok(Path::new(&address[5..])), "{address}");
            assert_eq!(parse_share(address).as_deref(), Ok(address));
        }
        let reason = "must be unix:/path, with an absolute path of at most 107 bytes";
        for address in [
            "/run/mmc.sock",
            "unix:",
            "unix:run/mmc.sock",
            "unix:@abstract",
            "Unix:/run/mmc.sock",
            " unix:/run/mmc.sock",
            "tcp:/run/mmc.sock",
            "unix:/run/\0mmc.sock",
            &too_long,
        ] {
            assert_eq!(socket_path(address), Err(reason.to_string()), "{address}");
            assert_eq!(parse_share(address), Err(reason.to_string()), "{address}");
        }
        assert_eq!(parse_share("").as_deref(), Ok(""));
        assert!(socket_path("").is_err());
    }

    #[test]
    fn a_mode_is_octal() {
        let cases = [
            ("0600", 0o600),
            ("660", 0o660),
            ("1", 1),
            ("0777", 0o777),
            ("00000007", 7),
        ];
        for (text, mode) in cases {
            assert_eq!(parse_mode(text), Ok(mode), "{text}");
        }
        for text in [
            "",
            "0",
            "000",
            "1000",
            "0888",
            "0o600",
            "+600",
            "-1",
            "6 0",
            "rw-",
            "99999999999999999999",
        ] {
            assert_eq!(parse_mode(text), Err("must be 1 to 0777 octal".to_string()), "{text}");
        }
    }

    #[test]
    fn users_and_groups_are_numbers_between_commas() {
        let most: Vec<u32> = (0..64).collect();
        let cases: &[(&str, &[u32])] = &[
            ("", &[]),
            (" ", &[]),
            ("0", &[0]),
            ("1000,1001", &[1000, 1001]),
            (" 7 ,\t007,4294967294", &[7, 7, 4_294_967_294]),
            (&text_of_ids(&most), &most),
        ];
        for (text, ids) in cases {
            assert_eq!(parse_ids(text).as_deref(), Ok(*ids), "{text}");
            assert_eq!(parse_ids(&text_of_ids(ids)).as_deref(), Ok(*ids), "{text}");
        }
        let reason = "must be at most 64 numbers of 0 to 4294967294, with commas between them";
        let too_many = format!("{},64", text_of_ids(&most));
        for text in [
            ",",
            "1,",
            ",1",
            "1,,2",
            "root",
            "-1",
            "+1",
            "1 2",
            "1;2",
            "4294967295",
            &too_many,
        ] {
            assert_eq!(parse_ids(text), Err(reason.to_string()), "{text}");
        }
    }
}
