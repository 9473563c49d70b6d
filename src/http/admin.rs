//! The store as the admin port shows it. A query is a peek: looking at a key from outside must not keep it in memory.

use super::bodies::{ObjectView, SegmentView};
use super::routes::Admin;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::metrics::Counter;
use crate::store::{PEEK, Store};

impl Admin for Store {
    fn is_serving(&self) -> bool {
        self.is_healthy()
    }

    fn keys_from(&self, cursor: u32, page: &mut Vec<u8>) -> Result<Option<u32>> {
        Ok(self.page_of_keys(cursor, |key| {
            page.extend_from_slice(key.bytes());
            page.push(b'\n');
        }))
    }

    fn describe(&self, key: &str) -> Result<Option<ObjectView>> {
        match self.query(&Key::new(key.as_bytes())?, PEEK, 0) {
            Ok(view) => Ok(Some(ObjectView {
                size: view.size,
                blobs: view
                    .blobs
                    .iter()
                    .flatten()
                    .map(|blob| (blob.medium, blob.rank))
                    .collect(),
            })),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn segments(&self) -> Vec<SegmentView> {
        let segments = self.list_segments().map(|segment| SegmentView {
            address: segment.address,
            allocated: segment.allocated,
            capacity: segment.capacity,
            medium: segment.medium,
            rank: segment.rank,
        });
        segments.collect()
    }

    fn metrics(&self) -> String {
        self.metrics_text()
    }

    fn summary(&self) -> String {
        self.metrics.summary()
    }

    fn ptracer(&self) -> String {
        self.trace_text()
    }

    fn count_answer(&self) {
        self.metrics.add(Counter::HttpRequests, 1);
    }
}
