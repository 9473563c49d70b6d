//! Writing and reading in place, in memory of another process's pool that is mapped here: reservations, pins, leases, and copies by address.
//!
//! The tokens that the host has are kept in a list: a pool that is closed with some of them open goes when the last one has ended.

use std::sync::PoisonError;

use super::link::Haste;
use super::objects::{placement_of, sized, text_of};
use super::{Attached, Codes, Loans};
use crate::copy;
use crate::error::{Error, MMC_ERR_NOT_FOUND, Result, words};
use crate::key::Key;
use crate::segment::buffers::{Buffers, list_of};
use crate::segment::device::Direction;
use crate::share::wire::{Keys, Lent, Range, Request, Tokens};
use crate::store::inplace::View;
use crate::store::place::PutOptions;

/// How a token ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Commit,
    Abort,
    Unpin,
}

impl Attached {
    pub(crate) fn reserve(&self, key: &Key, size: u64, options: &PutOptions<'_>, term: u64) -> Result<View> {
        let placement = placement_of(options);
        let elements = vec![sized(key, size)];
        let lent = self.ask_for_loans(&Request::Reserve {
            placement,
            term,
            elements,
        })?;
        self.shown(&lent.single()?)
    }

    pub(crate) fn batch_reserve<'a>(
        &self,
        element: impl Fn(usize) -> Result<(Key<'a>, u64)>,
        options: &PutOptions<'_>,
        term: u64,
        results: &mut [i32],
        show: impl FnMut(usize, View),
    ) -> Result<()> {
        let sizes = std::cell::RefCell::new(Vec::new());
        let key = |number| {
            let (key, size) = element(number)?;
            sizes.borrow_mut().push(size);
            Ok(key)
        };
        self.each_lent(key, results, show, |keys| {
            let elements = keys.into_iter().zip(sizes.take());
            let elements = elements
                .map(|(key, size)| crate::share::wire::Sized { key, size })
                .collect();
            let placement = placement_of(options);
            self.ask_for_loans(&Request::Reserve {
                placement,
                term,
                elements,
            })
        })
    }

    pub(crate) fn pin(&self, key: &Key, flags: u32) -> Result<View> {
        let keys = vec![text_of(key)];
        let lent = self.ask_for_loans(&Request::Pin(Keys { flags, keys }))?;
        self.shown(&lent.single()?)
    }

    pub(crate) fn batch_pin<'a>(
        &self,
        key: impl Fn(usize) -> Result<Key<'a>>,
        flags: u32,
        results: &mut [i32],
        show: impl FnMut(usize, View),
    ) -> Result<()> {
        self.each_lent(key, results, show, |keys| {
            self.ask_for_loans(&Request::Pin(Keys { flags, keys }))
        })
    }

    pub(crate) fn commit(&self, token: u64) -> Result<()> {
        self.end_token(token, End::Commit)
    }

    pub(crate) fn abort(&self, token: u64) -> Result<()> {
        self.end_token(token, End::Abort)
    }

    pub(crate) fn unpin(&self, token: u64) -> Result<()> {
        self.end_token(token, End::Unpin)
    }

    pub(crate) fn batch_commit(&self, tokens: &[u64], results: &mut [i32]) -> Result<()> {
        self.end_tokens(tokens, End::Commit, results)
    }

    pub(crate) fn batch_abort(&self, tokens: &[u64], results: &mut [i32]) -> Result<()> {
        self.end_tokens(tokens, End::Abort, results)
    }

    pub(crate) fn batch_unpin(&self, tokens: &[u64], results: &mut [i32]) -> Result<()> {
        self.end_tokens(tokens, End::Unpin, results)
    }

    fn end_token(&self, token: u64, end: End) -> Result<()> {
        self.ask_to_end(vec![token], end)?.single()
    }

    fn end_tokens(&self, tokens: &[u64], end: End, results: &mut [i32]) -> Result<()> {
        if tokens.is_empty() {
            return Ok(());
        }
        let answer = self.ask_to_end(tokens.to_vec(), end)?;
        if answer.codes.len() != results.len() {
            return Err(self.links.not_understood());
        }
        results.copy_from_slice(&answer.codes);
        Ok(())
    }

    /// Ends tokens, which are void here from then on, whatever the owner says.
    fn ask_to_end(&self, tokens: Vec<u64>, end: End) -> Result<Codes> {
        let request = |tokens| match end {
            End::Commit => Request::Commit(Tokens { tokens }),
            End::Abort => Request::Abort(Tokens { tokens }),
            End::Unpin => Request::Unpin(Tokens { tokens }),
        };
        let answer = self.ask_for_codes(Haste::Short, &request(tokens.clone()));
        let mut open = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, token) in tokens.iter().enumerate() {
            // One that stands for something else stays.
            let code = answer
                .as_ref()
                .map_or(0, |answer| answer.codes.get(number).copied().unwrap_or(0));
            if code != MMC_ERR_NOT_FOUND {
                open.remove(token);
            }
        }
        answer
    }

    pub(crate) fn add_lease(&self, key: &Key, term: u64) -> Result<()> {
        let (flags, keys) = (0, vec![text_of(key)]);
        let keys = Keys { flags, keys };
        self.ask_for_codes(Haste::Short, &Request::AddLease { term, keys })?
            .single()
    }

    pub(crate) fn batch_add_lease<'a>(
        &self,
        key: impl Fn(usize) -> Result<Key<'a>>,
        term: u64,
        results: &mut [i32],
    ) -> Result<()> {
        self.each_key(key, results, |keys| {
            let keys = Keys { flags: 0, keys };
            self.ask_for_codes(Haste::Short, &Request::AddLease { term, keys })
        })
    }

    pub(crate) fn remove_lease(&self, key: &Key) -> Result<()> {
        let (flags, keys) = (0, vec![text_of(key)]);
        self.ask_for_codes(Haste::Short, &Request::RemoveLease(Keys { flags, keys }))?
            .single()
    }

    pub(crate) fn batch_remove_lease<'a>(
        &self,
        key: impl Fn(usize) -> Result<Key<'a>>,
        results: &mut [i32],
    ) -> Result<()> {
        self.each_key(key, results, |keys| {
            self.ask_for_codes(Haste::Short, &Request::RemoveLease(Keys { flags: 0, keys }))
        })
    }

    pub(crate) fn batch_copy<'a>(
        &self,
        element: impl Fn(usize) -> Result<(u64, Buffers<'a>)>,
        direction: Direction,
        results: &mut [i32],
    ) -> Result<()> {
        let mut codes = list_of(results.len(), || 0)?;
        let (mut good, mut ranges) = (Vec::new(), Vec::with_capacity(results.len()));
        for (number, code) in codes.iter_mut().enumerate() {
            match element(number) {
                Ok((address, buffers)) => {
                    let size = buffers.total();
                    ranges.push(Range { address, size });
                    good.push((number, buffers));
                }
                Err(error) => *code = error.code(),
            }
        }
        let loans = self.ask_for_loans(&Request::Copy { direction, ranges })?;
        if loans.codes.len() != good.len() {
            return Err(self.links.not_understood());
        }
        loans.each(
            |place| good[place].0,
            &mut codes,
            |place, lent| {
                let buffers = &good[place].1;
                self.copy(direction, lent, buffers, buffers.total().min(lent.size))
            },
        );
        copy::fence();
        self.release(loans.lent.iter().map(|lent| lent.token).collect());
        results.copy_from_slice(&codes);
        Ok(())
    }

    /// Asks for memory for each of those keys that are good, shows it to the host, and writes a code for each of all.
    fn each_lent<'a>(
        &self,
        key: impl Fn(usize) -> Result<Key<'a>>,
        results: &mut [i32],
        mut show: impl FnMut(usize, View),
        ask: impl FnOnce(Vec<&'a str>) -> Result<Loans>,
    ) -> Result<()> {
        let mut lent = Vec::new();
        self.each_key(key, results, |keys| {
            let loans = ask(keys)?;
            lent = loans.lent;
            Ok(Codes {
                codes: loans.codes,
                words: loans.words,
            })
        })?;
        let found = (0..results.len())
            .filter(|number| results[*number] == 0)
            .collect::<Vec<_>>();
        for (number, lent) in found.into_iter().zip(lent) {
            match self.shown(&lent) {
                Ok(view) => show(number, view),
                Err(error) => results[number] = error.code(),
            }
        }
        Ok(())
    }

    /// Memory that the host gets; it has the token from then on.
    fn shown(&self, lent: &Lent) -> Result<View> {
        let pointer = self.pointer(lent.address, lent.size).and_then(|pointer| {
            pointer.ok_or_else(|| Error::Internal(words!("address {:#x}: it can't be mapped here", lent.address)))
        });
        let pointer = pointer.inspect_err(|_| self.release(vec![lent.token]))?;
        self.tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(lent.token);
        Ok(View {
            token: lent.token,
            address: lent.address,
            pointer: Some(pointer),
            size: lent.size,
        })
    }
}
