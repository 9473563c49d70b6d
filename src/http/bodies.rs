//! The JSON bodies of the admin port, byte for byte.
//!
//! Readers compare these bodies by eye and by `diff`, so the contract fixes more than JSON does: keys in alphabetical
//! order, four spaces of indentation, `[]` for an empty list, no newline at the end. Serde writes the fields of a
//! struct in the order of their declaration; hence **the structs below declare their fields in alphabetical order of
//! the JSON name**, and that order is the whole mechanism. The tests hold the documents of the contract.
//!
//! Bodies are rendered from snapshots ([`ObjectView`], [`SegmentView`]) that the store has already let go of: nothing
//! here takes a lock or looks at an object. The plain-text bodies (metrics, summary, ptracer) come ready-made from the
//! modules that own those numbers, and the list of keys is streamed by the caller; neither passes through here.

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::PrettyFormatter;

use crate::error::{Error, Result};
use crate::segment::Medium;

/// A snapshot of one object.
#[derive(Debug, Clone)]
pub(crate) struct ObjectView {
    /// Bytes as they were put.
    pub(crate) size: u64,
    /// Medium and rank of every copy that can be read now, in placement order.
    pub(crate) blobs: Vec<(Medium, u32)>,
}

/// A snapshot of one segment.
#[derive(Debug, Clone)]
pub(crate) struct SegmentView {
    /// The base in the pool's address space.
    pub(crate) address: u64,
    /// Bytes that the allocator has handed out.
    pub(crate) allocated: u64,
    /// Bytes.
    pub(crate) capacity: u64,
    pub(crate) medium: Medium,
    pub(crate) rank: u32,
}

/// The body of `/query_key`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectBody<'a> {
    blobs: Vec<BlobBody>, // in placement order, as the store gave them
    key: &'a str,
    num_blobs: usize,
    prot: u32, // the protection word of the original service; objects here have none, it is always 0
    size: u64, // bytes as they were put, not the rounded allocation
    valid: bool,
}

/// One readable copy of an object.
#[derive(Serialize)]
struct BlobBody {
    medium: &'static str,
    rank: u32,
}

/// One element of the body of `/get_all_segments`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SegmentBody {
    allocated_size: u64,
    bm_addr: u64,
    capacity: u64,
    medium: &'static str,
    rank: u32,
}

/// Renders `/query_key` for an object that can be read now.
pub(crate) fn object(key: &str, view: &ObjectView) -> Result<Vec<u8>> {
    let blobs = view
        .blobs
        .iter()
        .map(|&(medium, rank)| BlobBody {
            medium: medium.name(),
            rank,
        })
        .collect();
    render(&ObjectBody {
        blobs,
        key,
        num_blobs: view.blobs.len(),
        prot: 0,
        size: view.size,
        valid: true,
    })
}

/// Renders `/get_all_segments`, ordered by medium (HBM, DRAM, SSD), then rank, then address.
pub(crate) fn segments(mut views: Vec<SegmentView>) -> Result<Vec<u8>> {
    views.sort_by_key(|view| (view.medium, view.rank, view.address));
    let bodies: Vec<SegmentBody> = views
        .iter()
        .map(|view| SegmentBody {
            allocated_size: view.allocated,
            bm_addr: view.address,
            capacity: view.capacity,
            medium: view.medium.name(),
            rank: view.rank,
        })
        .collect();
    render(&bodies)
}

fn render(body: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
    body.serialize(&mut serializer)
        .map_err(|reason| Error::Internal(format!("a JSON body: {reason}").into()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: Result<Vec<u8>>) -> String {
        String::from_utf8(body.unwrap()).unwrap()
    }

    #[test]
    fn an_object_is_rendered_as_the_contract_prints_it() {
        let view = ObjectView {
            size: 100,
            blobs: vec![(Medium::Hbm, 0)],
        };
        let expected = r#"{
    "blobs": [
        {
            "medium": "HBM",
            "rank": 0
        }
    ],
    "key": "key_a",
    "numBlobs": 1,
    "prot": 0,
    "size": 100,
    "valid": true
}"#;
        assert_eq!(text(object("key_a", &view)), expected);
    }

    #[test]
    fn copies_keep_their_placement_order() {
        let view = ObjectView {
            size: 1,
            blobs: vec![(Medium::Ssd, 7), (Medium::Hbm, 3), (Medium::Dram, 65535)],
        };
        let body: serde_json::Value = serde_json::from_slice(&object("k", &view).unwrap()).unwrap();
        assert_eq!(body["numBlobs"], 3);
        assert_eq!(body["blobs"][0]["medium"], "SSD");
        assert_eq!(body["blobs"][1]["rank"], 3);
        assert_eq!(body["blobs"][2]["rank"], 65535);
    }

    #[test]
    fn a_key_is_escaped_as_json_wants_it_and_no_further() {
        let view = ObjectView { size: 0, blobs: vec![] };
        let body = text(object("a\"b\\c/ключ", &view));
        assert!(body.contains(r#""key": "a\"b\\c/ключ","#), "{body}");
    }

    #[test]
    fn segments_are_rendered_as_the_contract_prints_them() {
        let segment = |address, allocated, medium, rank| SegmentView {
            address,
            allocated,
            capacity: 5368709120,
            medium,
            rank,
        };
        let views = vec![
            segment(3303903592448, 0, Medium::Dram, 1),
            segment(26380762873856, 360448, Medium::Hbm, 1),
            segment(3298534883328, 0, Medium::Dram, 0),
            segment(26375394164736, 368640, Medium::Hbm, 0),
        ];
        let expected = r#"[
    {
        "allocatedSize": 368640,
        "bmAddr": 26375394164736,
        "capacity": 5368709120,
        "medium": "HBM",
        "rank": 0
    },
    {
        "allocatedSize": 360448,
        "bmAddr": 26380762873856,
        "capacity": 5368709120,
        "medium": "HBM",
        "rank": 1
    },
    {
        "allocatedSize": 0,
        "bmAddr": 3298534883328,
        "capacity": 5368709120,
        "medium": "DRAM",
        "rank": 0
    },
    {
        "allocatedSize": 0,
        "bmAddr": 3303903592448,
        "capacity": 5368709120,
        "medium": "DRAM",
        "rank": 1
    }
]"#;
        assert_eq!(text(segments(views)), expected);
    }

    #[test]
    fn segments_of_one_rank_are_ordered_by_address_and_ssd_comes_last() {
        let segment = |address, medium, rank| SegmentView {
            address,
            allocated: 0,
            capacity: 4096,
            medium,
            rank,
        };
        let views = vec![
            segment(1, Medium::Ssd, 0),
            segment(9, Medium::Dram, 2),
            segment(8, Medium::Dram, 2),
            segment(u64::MAX >> 1, Medium::Dram, 1),
        ];
        let body: serde_json::Value = serde_json::from_slice(&segments(views).unwrap()).unwrap();
        let addresses: Vec<u64> = body
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["bmAddr"].as_u64().unwrap())
            .collect();
        assert_eq!(addresses, [u64::MAX >> 1, 8, 9, 1]);
    }

    #[test]
    fn no_segment_is_an_empty_array_of_two_bytes() {
        assert_eq!(text(segments(vec![])), "[]");
    }
}
