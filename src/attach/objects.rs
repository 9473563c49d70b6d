//! Objects of another process's pool: put, get, exist, query, remove, move, and the lists of keys.
//!
//! An element of a batch that is wrong by itself gets its code here, and the owner does not hear of it.

use super::link::Haste;
use super::{Attached, Codes, Loans};
use crate::copy;
use crate::error::{Error, MMC_ERR_NO_SPACE, Result};
use crate::key::Key;
use crate::object::MAX_COPIES;
use crate::segment::buffers::{Buffers, list_of};
use crate::segment::device::Direction;
use crate::share::wire::{Keys, Lent, Placement, Reply, Request, Room, Shown, Sized, Tokens};
use crate::store::GET_UP_TO;
use crate::store::migrate::Way;
use crate::store::place::PutOptions;
use crate::store::report::{BlobView, ObjectView};

/// An element of a batch, and its place there.
struct Placed<'a> {
    number: usize,
    key: Key<'a>,
    buffers: Buffers<'a>,
}

impl Attached {
    pub(crate) fn put(&self, key: &Key, buffers: &Buffers<'_>, options: &PutOptions<'_>) -> Result<()> {
        let room = Room {
            placement: placement_of(options),
            elements: vec![sized(key, buffers.total())],
            begin: 0,
            count: 1,
            stamp: None,
        };
        let lent = self.ask_for_loans(&Request::Put(room))?.single()?;
        let copied = self.copy(Direction::ToSegment, &lent, buffers, lent.size);
        copy::fence();
        if copied.is_err() {
            self.release(vec![lent.token]);
            return copied;
        }
        let tokens = vec![lent.token];
        self.ask_for_codes(Haste::Short, &Request::Commit(Tokens { tokens }))?
            .single()
    }

    pub(crate) fn batch_put<'a>(
        &self,
        element: impl Fn(usize) -> Result<(Key<'a>, Buffers<'a>)>,
        options: &PutOptions<'_>,
        results: &mut [i32],
    ) -> Result<()> {
        let mut codes = list_of(results.len(), || 0)?;
        let good = good_elements(element, &mut codes)?;
        let (mut begin, mut most, mut stamp) = (0, good.len(), None);
        while begin < good.len() {
            let part = &good[begin..good.len().min(begin + most)];
            let room = Room {
                placement: placement_of(options),
                elements: part
                    .iter()
                    .map(|placed| sized(&placed.key, placed.buffers.total()))
                    .collect(),
                begin: begin as u32,
                count: good.len() as u32,
                stamp,
            };
            let taken = self.ask_for_loans(&Request::Put(room)).and_then(|loans| {
                stamp = Some(loans.stamp);
                self.write_part(part, loans, &mut codes)
            });
            match taken {
                Ok(taken) => {
                    if taken < part.len() {
                        // The owner takes a few at a time, so the others need not all be named each time.
                        most = 2 * taken;
                    }
                    begin += taken;
                }
                // What came before is there; of the rest nobody knows.
                Err(error) if begin > 0 => {
                    good[begin..]
                        .iter()
                        .for_each(|placed| codes[placed.number] = error.code());
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        results.copy_from_slice(&codes);
        Ok(())
    }

    /// Copies the objects for which there is room, and publishes them; how many of the part were dealt with.
    fn write_part(&self, part: &[Placed<'_>], loans: Loans, codes: &mut [i32]) -> Result<usize> {
        let taken = loans.codes.len();
        if taken == 0 || taken > part.len() {
            return Err(self.links.not_understood());
        }
        let (mut tokens, mut written, mut given_up) = (Vec::new(), Vec::new(), Vec::new());
        loans.each(
            |place| part[place].number,
            codes,
            |place, lent| {
                let copied = self.copy(Direction::ToSegment, lent, &part[place].buffers, lent.size);
                match copied {
                    Ok(()) => {
                        tokens.push(lent.token);
                        written.push(part[place].number);
                    }
                    Err(_) => given_up.push(lent.token),
                }
                copied
            },
        );
        copy::fence();
        self.release(given_up);
        if !tokens.is_empty() {
            match self.ask_for_codes(Haste::Short, &Request::Commit(Tokens { tokens })) {
                Ok(published) if published.codes.len() == written.len() => {
                    written
                        .iter()
                        .zip(published.codes)
                        .for_each(|(number, code)| codes[*number] = code);
                }
                Ok(_) => return Err(self.links.not_understood()),
                Err(error) => written.iter().for_each(|number| codes[*number] = error.code()),
            }
        }
        Ok(taken)
    }

    pub(crate) fn get(&self, key: &Key, buffers: &Buffers<'_>, flags: u32) -> Result<u64> {
        let elements = vec![sized(key, buffers.total())];
        let lent = self.ask_for_loans(&Request::Get { flags, elements })?.single()?;
        let copied = self.read(&lent, buffers, flags);
        copy::fence();
        self.release(vec![lent.token]);
        copied.map(|()| lent.size)
    }

    pub(crate) fn batch_get<'a>(
        &self,
        element: impl Fn(usize) -> Result<(Key<'a>, Buffers<'a>)>,
        flags: u32,
        results: &mut [i32],
        mut sizes: Option<&mut [u64]>,
    ) -> Result<()> {
        let mut codes = list_of(results.len(), || 0)?;
        let mut left = good_elements(element, &mut codes)?;
        if let Some(sizes) = sizes.as_deref_mut() {
            sizes.fill(0);
        }
        let count = left.len();
        while !left.is_empty() {
            let got = match self.get_part(&left, flags, &mut codes, sizes.as_deref_mut()) {
                Ok(got) => got,
                Err(error) if left.len() == count => return Err(error),
                // What came before is there.
                Err(error) => {
                    left.iter().for_each(|placed| codes[placed.number] = error.code());
                    break;
                }
            };
            // An object that can't be mapped where it lies was copied; there is room for the next ones now, if there was for any.
            left.retain(|placed| got > 0 && codes[placed.number] == MMC_ERR_NO_SPACE);
        }
        results.copy_from_slice(&codes);
        Ok(())
    }

    /// Gets objects; how many.
    fn get_part(
        &self,
        part: &[Placed<'_>],
        flags: u32,
        codes: &mut [i32],
        mut sizes: Option<&mut [u64]>,
    ) -> Result<usize> {
        let elements = part
            .iter()
            .map(|placed| sized(&placed.key, placed.buffers.total()))
            .collect();
        let loans = self.ask_for_loans(&Request::Get { flags, elements })?;
        if loans.codes.len() != part.len() {
            return Err(self.links.not_understood());
        }
        loans.each(
            |place| part[place].number,
            codes,
            |place, lent| {
                self.read(lent, &part[place].buffers, flags)?;
                if let Some(sizes) = sizes.as_deref_mut() {
                    sizes[part[place].number] = lent.size;
                }
                Ok(())
            },
        );
        copy::fence();
        let tokens: Vec<u64> = loans.lent.iter().map(|lent| lent.token).collect();
        let got = tokens.len();
        self.release(tokens);
        Ok(got)
    }

    fn read(&self, lent: &Lent, buffers: &Buffers<'_>, flags: u32) -> Result<()> {
        let (given, object) = (buffers.total(), lent.size);
        if given != object && flags & GET_UP_TO == 0 {
            return Err(Error::SizeMismatch { given, object });
        }
        self.copy(Direction::FromSegment, lent, buffers, given.min(object))
    }

    /// Copies between memory that is lent and buffers.
    pub(super) fn copy(&self, direction: Direction, lent: &Lent, buffers: &Buffers<'_>, bytes: u64) -> Result<()> {
        self.memory(lent)?.copy(direction, lent.address, buffers, bytes)
    }

    /// Gives back what these tokens stand for.
    pub(super) fn release(&self, tokens: Vec<u64>) {
        if !tokens.is_empty() {
            self.tell(&Request::Release(Tokens { tokens }));
        }
    }

    pub(crate) fn exist(&self, key: &Key, flags: u32) -> Result<()> {
        let keys = vec![text_of(key)];
        self.ask_for_codes(Haste::Short, &Request::Exist(Keys { flags, keys }))?
            .single()
    }

    pub(crate) fn batch_exist<'a>(
        &self,
        key: impl Fn(usize) -> Result<Key<'a>>,
        flags: u32,
        results: &mut [i32],
    ) -> Result<()> {
        self.each_key(key, results, |keys| {
            self.ask_for_codes(Haste::Short, &Request::Exist(Keys { flags, keys }))
        })
    }

    pub(crate) fn prefix_len<'a>(
        &self,
        count: usize,
        key: impl Fn(usize) -> Result<Key<'a>>,
        flags: u32,
    ) -> Result<usize> {
        let mut keys = list_of(0, || "")?;
        let wrong = (0..count).find_map(|number| match key(number) {
            Ok(key) => {
                keys.push(text_of(&key));
                None
            }
            Err(error) => Some(error),
        });
        let good = keys.len();
        let length = self.ask(Haste::Short, &Request::PrefixLen(Keys { flags, keys }), number)? as usize;
        match wrong {
            Some(error) if length == good => Err(error),
            _ => Ok(length),
        }
    }

    pub(crate) fn query(&self, key: &Key, flags: u32) -> Result<ObjectView> {
        let keys = vec![text_of(key)];
        let (codes, objects) = self.ask_for_objects(Keys { flags, keys })?;
        codes.single()?;
        let shown = objects.into_iter().next();
        self.view(&shown.ok_or_else(|| Error::Internal("an answer of another size".into()))?)
    }

    pub(crate) fn batch_query<'a>(
        &self,
        key: impl Fn(usize) -> Result<Key<'a>>,
        flags: u32,
        results: &mut [i32],
        mut show: impl FnMut(usize, &ObjectView),
    ) -> Result<()> {
        let mut objects = Vec::new();
        self.each_key(key, results, |keys| {
            let (codes, shown) = self.ask_for_objects(Keys { flags, keys })?;
            objects = shown;
            Ok(codes)
        })?;
        let found = (0..results.len())
            .filter(|number| results[*number] == 0)
            .collect::<Vec<_>>();
        for (number, shown) in found.into_iter().zip(objects) {
            match self.view(&shown) {
                Ok(view) => show(number, &view),
                Err(error) => results[number] = error.code(),
            }
        }
        Ok(())
    }

    fn ask_for_objects(&self, keys: Keys<'_>) -> Result<(Codes, Vec<Shown>)> {
        self.ask(Haste::Short, &Request::Query(keys), |reply| match reply {
            Reply::Objects { codes, objects, words }
                if codes.iter().filter(|code| **code == 0).count() == objects.len() =>
            {
                let words = words.into_owned();
                Some((Codes { codes, words }, objects))
            }
            _ => None,
        })
    }

    fn view(&self, shown: &Shown) -> Result<ObjectView> {
        let mut blobs = [None; MAX_COPIES];
        for (place, blob) in blobs.iter_mut().zip(&shown.blobs) {
            *place = Some(BlobView {
                medium: blob.medium,
                rank: blob.rank,
                address: blob.address,
                pointer: self.pointer(blob.address, shown.size)?,
            });
        }
        Ok(ObjectView {
            size: shown.size,
            is_readable: shown.is_readable,
            leases: shown.leases,
            blobs,
        })
    }

    pub(crate) fn remove(&self, key: &Key) -> Result<()> {
        let (flags, keys) = (0, vec![text_of(key)]);
        self.ask_for_codes(Haste::Short, &Request::Remove(Keys { flags, keys }))?
            .single()
    }

    pub(crate) fn batch_remove<'a>(&self, key: impl Fn(usize) -> Result<Key<'a>>, results: &mut [i32]) -> Result<()> {
        self.each_key(key, results, |keys| {
            self.ask_for_codes(Haste::Short, &Request::Remove(Keys { flags: 0, keys }))
        })
    }

    pub(crate) fn remove_all(&self) -> Result<u64> {
        self.ask(Haste::Long, &Request::RemoveAll, number)
    }

    pub(crate) fn page_of_keys(&self, from: u32, mut visit: impl FnMut(&[u8])) -> Result<Option<u32>> {
        self.ask(Haste::Short, &Request::ListKeys { from }, |reply| match reply {
            Reply::Keys { keys, next } => {
                keys.iter().for_each(|key| visit(key.as_bytes()));
                Some(next)
            }
            _ => None,
        })
    }

    /// Moves objects to a slower medium, or copies them to a faster one.
    pub(crate) fn batch_move<'a>(
        &self,
        key: impl Fn(usize) -> Result<Key<'a>>,
        way: Way,
        results: &mut [i32],
    ) -> Result<()> {
        let Way { from, to } = way;
        self.each_key(key, results, |keys| {
            let keys = Keys { flags: 0, keys };
            self.ask_for_codes(Haste::Long, &Request::Move { from, to, keys })
        })
    }

    /// Asks about those keys of a batch that are good, and writes a code for each of all.
    pub(super) fn each_key<'a>(
        &self,
        key: impl Fn(usize) -> Result<Key<'a>>,
        results: &mut [i32],
        ask: impl FnOnce(Vec<&'a str>) -> Result<Codes>,
    ) -> Result<()> {
        let (mut numbers, mut keys) = (list_of(0, || 0)?, Vec::with_capacity(results.len()));
        let mut codes = list_of(results.len(), || 0)?;
        for (number, code) in codes.iter_mut().enumerate() {
            match key(number) {
                Ok(key) => {
                    numbers.push(number);
                    keys.push(text_of(&key));
                }
                Err(error) => *code = error.code(),
            }
        }
        if !keys.is_empty() {
            let answer = ask(keys)?;
            if answer.codes.len() != numbers.len() {
                return Err(self.links.not_understood());
            }
            numbers
                .iter()
                .zip(answer.codes)
                .for_each(|(number, code)| codes[*number] = code);
        }
        results.copy_from_slice(&codes);
        Ok(())
    }
}

impl Loans {
    /// Does `act` for each element that got memory, by its place in the question, and writes the code of each at its number in the batch.
    pub(super) fn each(
        &self,
        number_of: impl Fn(usize) -> usize,
        codes: &mut [i32],
        mut act: impl FnMut(usize, &Lent) -> Result<()>,
    ) {
        let mut lent = self.lent.iter();
        for (place, code) in self.codes.iter().enumerate() {
            codes[number_of(place)] = match code {
                0 => {
                    let lent = lent.next().expect("as many as there are good codes");
                    act(place, lent).map_or_else(|error| error.code(), |()| 0)
                }
                code => *code,
            };
        }
    }

    /// Of a single element.
    pub(super) fn single(self) -> Result<Lent> {
        match (&self.codes[..], &self.lent[..]) {
            ([0], [lent]) => Ok(*lent),
            ([code], []) => Err(Error::Remote(*code, self.words.into())),
            _ => Err(Error::Internal("an answer of another size".into())),
        }
    }
}

/// The elements of a batch that are good by themselves; the codes of the others.
fn good_elements<'a>(
    element: impl Fn(usize) -> Result<(Key<'a>, Buffers<'a>)>,
    codes: &mut [i32],
) -> Result<Vec<Placed<'a>>> {
    let mut good = Vec::new();
    good.try_reserve_exact(codes.len())
        .map_err(|_| Error::OutOfMemory("no memory for a batch".into()))?;
    for (number, code) in codes.iter_mut().enumerate() {
        match element(number) {
            Ok((key, buffers)) => good.push(Placed { number, key, buffers }),
            Err(error) => *code = error.code(),
        }
    }
    Ok(good)
}

pub(super) fn placement_of(options: &PutOptions<'_>) -> Placement {
    Placement {
        replicas: options.replicas as u8,
        preferred: options.preferred.into(),
        medium: options.medium,
    }
}

pub(super) fn text_of<'a>(key: &Key<'a>) -> &'a str {
    std::str::from_utf8(key.bytes()).expect("a key is text")
}

pub(super) fn sized<'a>(key: &Key<'a>, size: u64) -> Sized<'a> {
    Sized {
        key: text_of(key),
        size,
    }
}

fn number(reply: Reply<'_>) -> Option<u64> {
    match reply {
        Reply::Number(number) => Some(number),
        _ => None,
    }
}
