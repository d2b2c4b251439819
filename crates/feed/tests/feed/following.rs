//! Who follows sees everything once and in order, whatever happens.

use arrwdb_engine::state::{
    BatchEnd, BatchNote, BatchOperation, BatchOutcome, DocumentId, Language, Seq, TenantId,
};
use arrwdb_engine::{Embeddings, Engine, IndexChange, LibraryPatch};
use arrwdb_feed::{EventTypes, FeedError, Filter, Position};

use crate::support::*;

/// Does everything that makes events.
async fn busy_life(engine: &Engine) {
    let library = library(engine).await;
    put(engine, library, [(1, 2)]).await;
    put(engine, library, [(1, 1), (2, 1)]).await;
    delete(engine, library, &[2, 9]).await;
    let id = engine.new_batch_id();
    let note = BatchNote { id, operation: BatchOperation::Import, total: None, end: None };
    engine.note_batch(TENANT, library, note).await.unwrap();
    for outcome in [BatchOutcome::Completed, BatchOutcome::Failed] {
        let end = Some(BatchEnd { successful: 3, failed: 1, outcome });
        let note = BatchNote { end, total: Some(4), ..note };
        engine.note_batch(TENANT, library, note).await.unwrap();
    }
    let change = IndexChange { structure: None, quantization: None };
    engine.rebuild_index(TENANT, library, change).await.unwrap();
    engine.optimize_index(TENANT, library).await.unwrap();
    let language = Some(Language::Finnish);
    let patch = LibraryPatch { name: Some("b".into()), description: None, language };
    engine.update_library(TENANT, library, patch).await.unwrap();
    engine.delete_library(TENANT, library).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_change_is_told_as_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).await;
    let feed = feed(&engine).await;
    let mut subscription = feed.subscribe(everything(), None).unwrap();
    busy_life(&engine).await;
    let events = at_least(&mut subscription, 19).await;
    assert_eq!(
        types(&events),
        [
            "library.created",
            "chunk.added",
            "chunk.added",
            "document.added",
            "chunk.deleted",
            "chunk.deleted",
            "chunk.added",
            "document.updated",
            "chunk.added",
            "document.added",
            "chunk.deleted",
            "document.deleted",
            "batch.started",
            "batch.completed",
            "batch.failed",
            "index.rebuilt",
            "index.optimized",
            "library.updated",
            "library.deleted",
        ]
    );
    assert_eq!(events[3]["data"]["title"], "document 1 of 2");
    assert_eq!(events[3]["data"]["num_chunks"], 2);
    // The chunks that go are those that came.
    assert_eq!(events[4]["data"], events[1]["data"]);
    assert_eq!(events[11]["data"]["title"], "document 2 of 1");
    assert_eq!(events[11]["data"]["num_chunks"], 1);
    assert_eq!(events[12]["data"]["total"], serde_json::Value::Null);
    assert_eq!(events[14]["data"]["failed"], 1);
    assert_eq!(events[17]["data"]["name"], "b");
    assert_eq!(events[17]["data"]["language"], "fi");
    assert_eq!(events[18]["data"]["name"], "b");
    // The event of a document that was written alone has its record's own number.
    let seq = events[3]["seq"].as_u64().unwrap();
    assert_eq!(ids(&events[1..4]), [format!("{seq}.0"), format!("{seq}.1"), format!("{seq}")]);
    let stats = feed.stats();
    assert_eq!(stats.published.iter().map(|(_, count)| count).sum::<u64>(), 19);
    assert_eq!((stats.delivered, stats.subscribers, stats.running), (19, 1, true));
    drop(subscription);
    feed.close().await;
    assert_eq!((feed.stats().subscribers, feed.stats().running), (0, false));
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn f4_whoever_hears_of_a_document_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).await;
    let feed = feed(&engine).await;
    let mut subscription = feed.subscribe(Filter::of(TENANT), None).unwrap();
    let writer = engine.clone();
    let library = library(&engine).await;
    let writing = tokio::spawn(async move {
        for n in 0..200_u8 {
            put(&writer, library, [(n, 1)]).await;
        }
    });
    let mut seen = 0;
    while seen < 201 {
        let mut delivery = subscription.next().await.unwrap();
        while let Some(event) = delivery.next() {
            seen += 1;
            let told = told(event);
            let Some(id) = told["data"]["document_id"].as_str() else { continue };
            let snapshot = engine.library(TENANT, library, None).await.unwrap();
            assert!(snapshot.seq().get() >= told["seq"].as_u64().unwrap());
            let id: DocumentId = id.parse().unwrap();
            assert!(snapshot.document(id, Embeddings::Omitted).unwrap().is_some());
        }
    }
    writing.await.unwrap();
    feed.close().await;
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_those_who_come_and_go_see_every_event_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).await;
    let feed = small_feed(&engine).await;
    let library = library(&engine).await;
    let followers: Vec<_> = (0..6_usize)
        .map(|n| {
            let feed = feed.clone();
            tokio::spawn(async move {
                let mut seen: Vec<Position> = Vec::new();
                let mut events = Vec::new();
                // Each leaves after a number of events of its own, in the middle of records too.
                'come_back: loop {
                    let after = seen.last().copied().unwrap_or(Position::START);
                    let mut subscription = feed.subscribe(everything(), Some(after)).unwrap();
                    let mut left = 1 + 7 * n;
                    loop {
                        let mut delivery = subscription.next().await.unwrap();
                        while let Some(event) = delivery.next() {
                            seen.push(event.position());
                            events.push(told(event));
                            left -= 1;
                            if events.last().unwrap()["type"] == "library.deleted" {
                                return (seen, events);
                            }
                            if left == 0 {
                                continue 'come_back;
                            }
                        }
                    }
                }
            })
        })
        .collect();
    for n in 0..150_u8 {
        put(&engine, library, (n..n + 3).map(|n| (n, usize::from(n % 3) + 1))).await;
        if n % 5 == 0 {
            delete(&engine, library, &[n, n + 1]).await;
        }
    }
    engine.delete_library(TENANT, library).await.unwrap();
    let expected = past(&feed, &engine, everything(), Position::START).await;
    assert!(expected.len() > 1000);
    for follower in followers {
        let (seen, events) = follower.await.unwrap();
        assert!(seen.is_sorted() && seen.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(events == expected, "{} events of {}", events.len(), expected.len());
    }
    assert!(feed.stats().disk_reads > 0, "some were behind");
    feed.close().await;
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn f5_neither_filters_nor_restarts_nor_copies_change_an_event() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).await;
    let live = feed(&engine).await;
    let mut subscription = live.subscribe(everything(), None).unwrap();
    let library = library(&engine).await;
    let other = self::library(&engine).await;
    for n in 0..40_u8 {
        put(&engine, library, [(n, 2), (n + 1, 1)]).await;
        put(&engine, other, [(n, 1)]).await;
        delete(&engine, library, &[n]).await;
    }
    engine.delete_library(TENANT, other).await.unwrap();
    let mut all = Vec::new();
    while all.last().is_none_or(|last: &serde_json::Value| last["type"] != "library.deleted") {
        all.extend(at_least(&mut subscription, 1).await);
    }
    assert!(all.len() > 400);
    live.close().await;
    engine.close().await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    for path in [dir.path(), copy.path()] {
        let engine = open(path).await;
        let feed = small_feed(&engine).await;
        assert!(past(&feed, &engine, everything(), Position::START).await == all);
        let wanted = |event: &&serde_json::Value| event["type"] == "document.updated";
        let updated =
            Filter { types: EventTypes::parse("document.updated").unwrap(), ..everything() };
        let expected: Vec<_> = all.iter().filter(wanted).cloned().collect();
        assert!(!expected.is_empty());
        assert_eq!(past(&feed, &engine, updated.clone(), Position::START).await, expected);
        // From the middle of a record on.
        let middle = all.iter().position(|event| event["id"].as_str().unwrap().contains(".1"));
        let after = all[middle.unwrap()]["id"].as_str().unwrap().parse().unwrap();
        let rest = past(&feed, &engine, everything(), after).await;
        assert!(rest == all[middle.unwrap() + 1..]);
        // Of a library that is gone, and by a member.
        let gone = Filter { library: Some(other), ..everything() };
        let expected: Vec<_> =
            all.iter().filter(|it| it["library_id"] == other.to_string()).collect();
        let found = past(&feed, &engine, gone, Position::START).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), expected);
        assert_eq!(found.last().unwrap()["data"]["name"], "followed");
        let id = DocumentId::from_bytes([7; 16]).to_string();
        let member = Filter {
            members: vec![("document_id".into(), id.clone()), ("num_chunks".into(), "2".into())],
            ..updated
        };
        let found = past(&feed, &engine, member, Position::START).await;
        let expected = |event: &&serde_json::Value| {
            event["type"] == "document.updated"
                && event["data"]["document_id"] == *id
                && event["data"]["num_chunks"] == 2
        };
        assert!(!found.is_empty());
        assert_eq!(
            found.iter().collect::<Vec<_>>(),
            all.iter().filter(expected).collect::<Vec<_>>()
        );
        feed.close().await;
        engine.close().await.unwrap();
    }
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f6_nobody_is_told_of_anothers_events() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).await;
    let feed = feed(&engine).await;
    let other = TenantId::new(5);
    let mine = library(&engine).await;
    let theirs = library_of(&engine, other).await;
    engine.delete_library(other, theirs).await.unwrap();
    put(&engine, mine, [(1, 1)]).await;
    let mut subscription = feed.subscribe(Filter::of(other), Some(Position::START)).unwrap();
    let events = at_least(&mut subscription, 2).await;
    assert_eq!(types(&events), ["library.created", "library.deleted"]);
    assert!(subscription.try_next().await.unwrap().is_none());
    for (tenant, library) in [(other, mine), (TENANT, theirs)] {
        let filter = Filter { library: Some(library), ..Filter::of(tenant) };
        let refused = feed.subscribe(filter, None).unwrap_err();
        assert!(matches!(refused, FeedError::LibraryNotFound(id) if id == library));
    }
    // What is deleted stays with whom it belonged to, after a restart too.
    feed.close().await;
    engine.close().await.unwrap();
    let engine = open(dir.path()).await;
    let feed = self::feed(&engine).await;
    let filter = Filter { library: Some(theirs), ..Filter::of(other) };
    let events = past(&feed, &engine, filter, Position::START).await;
    assert_eq!(types(&events), ["library.created", "library.deleted"]);
    feed.close().await;
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_what_is_gone_is_an_error_that_says_where_to_begin() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).await;
    let feed = small_feed(&engine).await;
    let library = library(&engine).await;
    for n in 0..40 {
        put(&engine, library, [(n, 1)]).await;
    }
    let mut behind = feed.subscribe(Filter::of(TENANT), Some(Position::START)).unwrap();
    let first = all_of(behind.next().await.unwrap());
    assert_eq!(first[0]["type"], "library.created");
    engine.purge().await.unwrap();
    put(&engine, library, [(50, 1)]).await;
    let mut late = feed.subscribe(Filter::of(TENANT), Some(Position::START)).unwrap();
    let Err(FeedError::Trimmed { oldest }) = late.next().await else { panic!("it is gone") };
    assert_eq!(oldest, feed.oldest());
    assert!(oldest > Seq::new(41));
    late.seek(Position::after(Seq::new(oldest.get() - 1)));
    let events = at_least(&mut late, 1).await;
    assert_eq!(events[0]["data"]["title"], "document 50 of 1");
    assert_eq!(feed.stats().errors, 1);
    feed.close().await;
    assert!(matches!(late.next().await, Err(FeedError::Closed)));
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn f3_those_who_do_not_read_cost_nobody_anything() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).await;
    let feed = small_feed(&engine).await;
    let library = library(&engine).await;
    let mut stalled: Vec<_> =
        (0..50).map(|_| feed.subscribe(Filter::of(TENANT), None).unwrap()).collect();
    for n in 0..100 {
        put(&engine, library, [(n, 1)]).await;
    }
    let held = feed.stats();
    assert!(held.buffered_events <= 20, "{}", held.buffered_events);
    assert_eq!(held.subscribers, 50);
    let events = at_least(stalled.last_mut().unwrap(), 100).await;
    assert_eq!(events.len(), 100);
    feed.close().await;
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_waits_are_short_gets_through_what_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).await;
    let feed = small_feed(&engine).await;
    let library = library(&engine).await;
    let mut last = Seq::START;
    for n in 1..=60 {
        last = put(&engine, library, [(n, 1)]).await;
    }
    let mut follower = feed.subscribe(everything(), Some(Position::after(Seq::START))).unwrap();
    let wanted = std::time::Duration::from_secs(30);
    let events = tokio::time::timeout(wanted, async {
        let mut events = Vec::new();
        while follower.position() < Position::after(last) {
            tokio::select! {
                biased;
                delivery = follower.next() => events.extend(all_of(delivery.unwrap())),
                // As short as a wait can be: it is given up at once.
                () = std::future::ready(()) => tokio::task::yield_now().await,
            }
        }
        events
    });
    let events = events.await.expect("what is read goes on from one wait to the next");
    assert!(feed.stats().disk_reads > 0, "it was behind");
    assert_eq!(events.len(), 1 + 2 * 60, "the library, and each document with its chunk");
    // Another place, and other wishes, are not answered with what was read before.
    follower.seek(Position::after(Seq::START));
    tokio::select! {
        biased;
        // A read that is over at once has moved on: what is asked for next is another place again.
        _delivery = follower.next() => follower.seek(Position::after(Seq::START)),
        () = std::future::ready(()) => {}
    }
    follower.narrow(|filter| filter.types = EventTypes::parse("library.*").unwrap());
    assert_eq!(types(&all_of(follower.next().await.unwrap())), ["library.created"]);
}
