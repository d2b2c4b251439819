//! A copy of a library by a snapshot and the events that follow it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::events::{delete, put};
use crate::harness::Site;
use crate::harness::sse::EventStream;

#[tokio::test]
async fn a_snapshot_and_what_follows_are_the_library_while_it_is_written_to() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(3).await;
    for n in 0..40 {
        put(&server, &library, n, 1).await;
    }
    let writers: Vec<_> = (0..3_u64)
        .map(|writer| {
            let (client, library) = (server.client.clone(), library.clone());
            tokio::spawn(async move {
                for n in 0..60 {
                    let n = 3 * (n % 25) + writer;
                    put(&client, &library, n, 1 + usize::try_from(n % 3).expect("small")).await;
                    if n % 4 == 0 {
                        delete(&client, &library, n).await;
                    }
                }
            })
        })
        .collect();
    let path = format!("/v1/events/stream?library_id={library}&snapshot=true");
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(EventStream::open(&server, &path, None).await);
    }
    for writer in writers {
        writer.await.expect("written");
    }
    let last = put(&server, &library, 1000, 1).await.to_string();
    let documents = server.get(&format!("/v1/libraries/{library}")).await.expect(200);
    let expected: BTreeMap<String, usize> = documents["documents"]
        .as_array()
        .expect("documents")
        .iter()
        .map(|it| (it["id"].as_str().expect("id").to_owned(), chunk_count(it)))
        .collect();
    for mut stream in streams {
        assert_eq!(copy_up_to(&mut stream, &last).await, expected);
    }
}

fn chunk_count(document: &Value) -> usize {
    document["chunks"].as_array().expect("chunks").len()
}

/// What a client has that keeps a copy by a snapshot and what follows, up to a place.
async fn copy_up_to(stream: &mut EventStream, last: &str) -> BTreeMap<String, usize> {
    let begin = stream.event().await.expect("a frame");
    assert_eq!(begin.event.as_deref(), Some("snapshot.begin"));
    let mut copy = BTreeMap::new();
    loop {
        let frame = stream.event().await.expect("a frame");
        let text = |name: &str| frame.data[name].as_str().expect("a text").to_owned();
        let count = || {
            let count = frame.data["num_chunks"].as_u64().expect("a number");
            usize::try_from(count).expect("small")
        };
        match frame.event.as_deref().expect("a kind") {
            "snapshot.document" => {
                assert_eq!(frame.id, None, "who is cut off here begins again");
                copy.insert(text("id"), chunk_count(&frame.data));
            }
            "snapshot.end" => {
                assert_eq!(begin.data["num_documents"], copy.len());
                assert_eq!(frame.id, Some(begin.data["seq"].to_string()));
            }
            "document.added" => {
                assert_eq!(copy.insert(text("document_id"), count()), None, "added once");
            }
            "document.updated" => {
                assert!(copy.insert(text("document_id"), count()).is_some(), "was there");
            }
            "document.deleted" => assert!(copy.remove(&text("document_id")).is_some()),
            other => panic!("{other}"),
        }
        if frame.id.as_deref() == Some(last) {
            return copy;
        }
    }
}

#[tokio::test]
async fn a_snapshot_that_was_sent_holds_no_slot_and_waits_for_a_number() {
    let mut site = Site::new().await;
    site.set("MAX_CONCURRENT_REQUESTS", "1");
    site.set("MIN_SEQ_WAIT_MILLISECONDS", "20");
    let server = site.start().await;
    let library = server.vector_library(3).await;
    let seq = put(&server, &library, 1, 1).await;
    let path = format!("/v1/events/stream?library_id={library}&snapshot=true");
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = EventStream::open(&server, &format!("{path}&min_seq={seq}"), None).await;
        let frames = stream.events(3).await;
        assert_eq!(frames[2].event.as_deref(), Some("snapshot.end"));
        open.push(stream);
    }
    let ahead = server.get(&format!("{path}&min_seq={}", seq + 1000)).await;
    ahead.problem(409, "SeqNotReachedError");
    let refused = server.get(&format!("{path}&as_of={seq}")).await;
    refused.problem(422, "ValidationError");
    assert_eq!(refused.pointers(), ["/query/as_of"]);
}
