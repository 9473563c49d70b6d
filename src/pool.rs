//! What a handle of the C ABI stands for: a store of this process, or a pool that another one owns.
//!
//! Both have the same calls with the same meaning. This is the one place where they are told apart; what an attached process can't do is
//! `Unsupported` here or in [`crate::attach`].

use std::sync::Arc;

use crate::attach::Attached;
use crate::error::{Error, Result};
use crate::event::Listener;
use crate::key::Key;
use crate::metrics::COUNTERS;
use crate::segment::buffers::Buffers;
use crate::segment::device::Direction;
use crate::store::inplace::View;
use crate::store::migrate::Way;
use crate::store::place::PutOptions;
use crate::store::report::{ObjectView, SegmentView, Statistics};
use crate::store::segments::Plan;
use crate::store::{Source, Store};

/// See the module's text.
pub(crate) enum Pool {
    Own(Arc<Store>),
    Attached(Box<Attached>),
}

/// A call that both have under the same name with the same arguments and result.
macro_rules! both {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(
            $(#[$doc])*
            #[inline(always)]
            pub(crate) fn $name(&self, $($argument: $type),*) -> $result {
                match self {
                    Pool::Own(store) => store.$name($($argument),*),
                    Pool::Attached(attached) => attached.$name($($argument),*),
                }
            }
        )*
    };
}

/// A call for keys of a batch, which can't fail as a whole on a store of this process.
macro_rules! batches {
    ($($(#[$doc:meta])* fn $name:ident<$life:lifetime>($($argument:ident: $type:ty),*);)*) => {
        $(
            $(#[$doc])*
            #[inline(always)]
            pub(crate) fn $name<$life>(&self, $($argument: $type),*) -> Result<()> {
                match self {
                    Pool::Own(store) => {
                        store.$name($($argument),*);
                        Ok(())
                    }
                    Pool::Attached(attached) => attached.$name($($argument),*),
                }
            }
        )*
    };
}

impl Pool {
    both! {
        fn put(key: &Key<'_>, buffers: &Buffers<'_>, options: &PutOptions<'_>) -> Result<()>;
        fn exist(key: &Key<'_>, flags: u32) -> Result<()>;
        fn remove(key: &Key<'_>) -> Result<()>;
        fn reserve(key: &Key<'_>, size: u64, options: &PutOptions<'_>, term: u64) -> Result<View>;
        fn commit(token: u64) -> Result<()>;
        fn abort(token: u64) -> Result<()>;
        fn pin(key: &Key<'_>, flags: u32) -> Result<View>;
        fn unpin(token: u64) -> Result<()>;
        fn add_lease(key: &Key<'_>, term: u64) -> Result<()>;
        fn remove_lease(key: &Key<'_>) -> Result<()>;
        fn register_segment(plan: &Plan, source: Source) -> Result<u64>;
        fn unregister_segment(address: u64) -> Result<()>;
        /// Pins and reservations that are open, and keep memory when it is closed.
        fn tokens() -> u64;
        /// False once it is being closed.
        fn is_serving() -> bool;
    }

    batches! {
        fn batch_exist<'a>(key: impl Fn(usize) -> Result<Key<'a>>, flags: u32, results: &mut [i32]);
        fn batch_remove<'a>(key: impl Fn(usize) -> Result<Key<'a>>, results: &mut [i32]);
        fn batch_query<'a>(
            key: impl Fn(usize) -> Result<Key<'a>>, flags: u32, results: &mut [i32], show: impl FnMut(usize, &ObjectView)
        );
        fn batch_reserve<'a>(
            element: impl Fn(usize) -> Result<(Key<'a>, u64)>, options: &PutOptions<'_>, term: u64, results: &mut [i32],
            show: impl FnMut(usize, View)
        );
        fn batch_pin<'a>(
            key: impl Fn(usize) -> Result<Key<'a>>, flags: u32, results: &mut [i32], show: impl FnMut(usize, View)
        );
        fn batch_commit<'a>(tokens: &'a [u64], results: &mut [i32]);
        fn batch_abort<'a>(tokens: &'a [u64], results: &mut [i32]);
        fn batch_unpin<'a>(tokens: &'a [u64], results: &mut [i32]);
        fn batch_add_lease<'a>(key: impl Fn(usize) -> Result<Key<'a>>, term: u64, results: &mut [i32]);
        fn batch_remove_lease<'a>(key: impl Fn(usize) -> Result<Key<'a>>, results: &mut [i32]);
    }

    pub(crate) fn batch_put<'a>(
        &self,
        element: impl Fn(usize) -> Result<(Key<'a>, Buffers<'a>)>,
        options: &PutOptions<'_>,
        results: &mut [i32],
    ) -> Result<()> {
        match self {
            Pool::Own(store) => store.batch_put(element, options, results),
            Pool::Attached(attached) => attached.batch_put(element, options, results),
        }
    }

    /// `stream` is for devices, which an attached process has none of.
    #[inline(always)]
    pub(crate) fn get(&self, key: &Key<'_>, buffers: &Buffers<'_>, flags: u32, stream: usize) -> Result<u64> {
        match self {
            Pool::Own(store) => store.get(key, buffers, flags, stream),
            Pool::Attached(attached) => attached.get(key, buffers, flags),
        }
    }

    pub(crate) fn batch_get<'a>(
        &self,
        element: impl Fn(usize) -> Result<(Key<'a>, Buffers<'a>)>,
        flags: u32,
        stream: usize,
        results: &mut [i32],
        sizes: Option<&mut [u64]>,
    ) -> Result<()> {
        match self {
            Pool::Own(store) => store.batch_get(element, flags, stream, results, sizes),
            Pool::Attached(attached) => attached.batch_get(element, flags, results, sizes),
        }
    }

    pub(crate) fn prefix_len<'a>(
        &self,
        count: usize,
        key: impl Fn(usize) -> Result<Key<'a>>,
        flags: u32,
    ) -> Result<usize> {
        match self {
            Pool::Own(store) => store.prefix_len(count, key, flags),
            Pool::Attached(attached) => attached.prefix_len(count, key, flags),
        }
    }

    pub(crate) fn query(&self, key: &Key<'_>, flags: u32) -> Result<ObjectView> {
        match self {
            Pool::Own(store) => store.query_one(key, flags),
            Pool::Attached(attached) => attached.query(key, flags),
        }
    }

    pub(crate) fn remove_all(&self) -> Result<u64> {
        match self {
            Pool::Own(store) => Ok(store.remove_all()),
            Pool::Attached(attached) => attached.remove_all(),
        }
    }

    /// Gives `visit` a page of keys; where the next begins.
    pub(crate) fn page_of_keys(&self, from: u32, mut visit: impl FnMut(&[u8])) -> Result<Option<u32>> {
        match self {
            Pool::Own(store) => Ok(store.page_of_keys(from, |key| visit(key.bytes()))),
            Pool::Attached(attached) => attached.page_of_keys(from, visit),
        }
    }

    pub(crate) fn batch_evict<'a>(
        &self,
        key: impl Fn(usize) -> Result<Key<'a>>,
        way: Way,
        results: &mut [i32],
    ) -> Result<()> {
        match self {
            Pool::Own(store) => store.batch_evict(key, way, results),
            Pool::Attached(attached) => attached.batch_move(key, way, results),
        }
    }

    pub(crate) fn batch_prefetch<'a>(
        &self,
        key: impl Fn(usize) -> Result<Key<'a>>,
        way: Way,
        results: &mut [i32],
    ) -> Result<()> {
        match self {
            Pool::Own(store) => store.batch_prefetch(key, way, results),
            Pool::Attached(attached) => attached.batch_move(key, way, results),
        }
    }

    pub(crate) fn batch_copy<'a>(
        &self,
        element: impl Fn(usize) -> Result<(u64, Buffers<'a>)>,
        direction: Direction,
        stream: usize,
        results: &mut [i32],
    ) -> Result<()> {
        match self {
            Pool::Own(store) => store.batch_copy(element, direction, stream, results),
            Pool::Attached(attached) => attached.batch_copy(element, direction, results),
        }
    }

    /// Gives `visit` the segments, by medium, rank and address.
    pub(crate) fn each_segment(&self, visit: impl FnMut(SegmentView)) -> Result<()> {
        match self {
            Pool::Own(store) => store.list_segments().for_each(visit),
            Pool::Attached(attached) => attached.list_segments()?.into_iter().for_each(visit),
        }
        Ok(())
    }

    /// Levels now, and every counter's total at its place in [`crate::metrics::Counter`].
    pub(crate) fn statistics(&self) -> Result<(Statistics, [u64; COUNTERS])> {
        match self {
            Pool::Own(store) => {
                // A host's clock may have moved on since the last call.
                store.sweep();
                Ok((store.statistics(), store.totals()))
            }
            Pool::Attached(attached) => attached.statistics(),
        }
    }

    pub(crate) fn listen(&self, listener: Option<Box<dyn Listener>>) -> Result<()> {
        match self {
            Pool::Own(store) => store.events.listen(listener),
            Pool::Attached(_) => Err(Error::Unsupported(
                "events of a pool that another process owns: its owner hears them".into(),
            )),
        }
    }

    /// Whether this is the thread that hands events on.
    pub(crate) fn is_hearing(&self) -> bool {
        match self {
            Pool::Own(store) => store.events.is_own_thread(),
            Pool::Attached(_) => false,
        }
    }

    /// The process's own rank.
    pub(crate) fn rank(&self) -> Option<u32> {
        match self {
            Pool::Own(store) => Some(store.rank()),
            Pool::Attached(attached) => attached.rank(),
        }
    }
}
