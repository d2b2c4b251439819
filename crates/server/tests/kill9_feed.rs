//! `kill -9` while clients write and others follow the feed, leave it at random and come back.
//!
//! - Everybody who follows sees every acknowledged change exactly once, in order.
//! - A change that was under way is seen by all or by nobody.
//! - What all of them saw is what the log tells afterwards, place by place.
//!
//! `ARRWDB_KILL9_ROUNDS` sets the number of rounds (3), `ARRWDB_KILL9_SEED` the seed (1).

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "shared with the other tests, which use more of it")]
mod harness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use harness::sse::{EventStream, Frame};
use harness::vectors::Seeded;
use harness::{Answer, Client, Site, until};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

const WRITERS: u64 = 4;
const FOLLOWERS: u64 = 5;
/// Acknowledged writes before a kill.
const ACKNOWLEDGED_MIN: u64 = 60;
const ACKNOWLEDGED_SPREAD: usize = 200;
const STREAM: &str = "/v1/events/stream?event_types=*,chunk.*";

/// What one who follows has seen.
#[derive(Debug, Default)]
struct Seen {
    last: Option<String>,
    events: Vec<(String, Value)>,
}

impl Seen {
    fn take(&mut self, frame: Frame) {
        let kind = frame.event.expect("an event");
        assert!(kind != "reset" && kind != "cut-off", "{kind}: {}", frame.data);
        let id = frame.id.expect("a place");
        self.last = Some(id.clone());
        self.events.push((id, frame.data));
    }
}

/// Follows until the server is gone, or `last` has come; leaves and comes back at random.
async fn follow(client: Client, mut random: Seeded, mut seen: Seen, last: Option<String>) -> Seen {
    loop {
        let path =
            if seen.last.is_some() { STREAM.to_owned() } else { format!("{STREAM}&after=0") };
        let Some(mut stream) = EventStream::try_open(&client, &path, seen.last.as_deref()).await
        else {
            return seen;
        };
        for _ in 0..=random.below(150) {
            match stream.event().await {
                Some(frame) => seen.take(frame),
                None => break,
            }
            if last.is_some() && seen.last == last {
                return seen;
            }
        }
    }
}

/// What a writer knows: titles of the versions that it wrote, and documents that it deleted, each
/// with whether that was acknowledged.
#[derive(Debug, Default)]
struct Written {
    live: Vec<Uuid>,
    titles: BTreeMap<String, bool>,
    deleted: BTreeMap<Uuid, bool>,
}

/// Writes until the server is gone.
async fn write(
    client: Client,
    library: String,
    mut random: Seeded,
    mut written: Written,
    count: Arc<AtomicU64>,
) -> Written {
    let documents = format!("/v1/libraries/{library}/documents");
    loop {
        match one_write(&client, &documents, &mut random, &mut written).await {
            Some(answer) if answer.status < 300 => {
                count.fetch_add(1, Ordering::SeqCst);
            }
            Some(answer) => assert!(answer.status >= 500, "{}: {}", answer.status, answer.text()),
            None => return written,
        }
    }
}

async fn one_write(
    client: &Client,
    documents: &str,
    random: &mut Seeded,
    written: &mut Written,
) -> Option<Answer> {
    let choice = random.below(10);
    let existing = written.live.get(random.below(written.live.len().max(1))).copied();
    if let Some(id) = existing.filter(|_| choice < 3) {
        written.live.retain(|live| *live != id);
        written.deleted.insert(id, false);
        let request = client.request(Method::DELETE, &format!("{documents}/{id}"));
        let answer = client.try_send(request).await?;
        written.deleted.insert(id, answer.status == 204);
        return Some(answer);
    }
    let id = existing.filter(|_| choice < 5);
    let id = id.unwrap_or_else(|| Uuid::from_u64_pair(random.bits(), random.bits()));
    // Until it is answered it may be there or not: it is let be.
    written.live.retain(|live| *live != id);
    let title = format!("{:016x}", random.bits());
    written.titles.insert(title.clone(), false);
    let chunk = |n: usize| json!({"text": format!("{title} {n}"), "embedding": [1, 2, n]});
    let chunks: Vec<Value> = (0..=random.below(3)).map(chunk).collect();
    let body = json!({"id": id, "title": title, "chunks": chunks});
    let request = client.request(Method::POST, &format!("{documents}/with-embeddings"));
    let answer = client.try_send(request.json(&body)).await?;
    if answer.status == 201 {
        written.titles.insert(title, true);
        written.live.push(id);
    }
    Some(answer)
}

/// Everything that the log tells.
async fn all_events(client: &Client) -> Vec<Value> {
    let (mut events, mut after) = (Vec::new(), "0".to_owned());
    loop {
        let path = format!("/v1/events?after={after}&limit=1000&event_types=*,chunk.*");
        let page = client.get(&path).await.expect(200);
        let found = page["events"].as_array().expect("events");
        if found.is_empty() {
            return events;
        }
        events.extend(found.iter().cloned());
        page["next"].as_str().expect("next").clone_into(&mut after);
    }
}

/// Compares what was told with what was written.
fn verify(events: &[Value], writers: &[Written]) {
    let mut titles: BTreeMap<&str, u32> = BTreeMap::new();
    let mut deleted: BTreeMap<&str, u32> = BTreeMap::new();
    for event in events {
        let text = |name: &str| event["data"][name].as_str().expect("a text");
        match event["type"].as_str().expect("a type") {
            "document.added" | "document.updated" => *titles.entry(text("title")).or_default() += 1,
            "document.deleted" => *deleted.entry(text("document_id")).or_default() += 1,
            _ => {}
        }
    }
    for written in writers {
        for (title, acknowledged) in &written.titles {
            let told = titles.get(title.as_str()).copied().unwrap_or(0);
            assert!(told == 1 || (told == 0 && !acknowledged), "{title} is told of {told} times");
        }
        for (id, acknowledged) in &written.deleted {
            let told = deleted.get(id.to_string().as_str()).copied().unwrap_or(0);
            assert!(told == 1 || (told == 0 && !acknowledged), "{id} is deleted {told} times");
        }
    }
}

/// Follows until everything is seen.
async fn follow_to_the_end(client: &Client, random: Seeded, seen: Seen, events: &[Value]) -> Seen {
    let last = events.last().expect("events")["id"].as_str().map(str::to_owned);
    if seen.last == last { seen } else { follow(client.clone(), random, seen, last).await }
}

/// Compares what one who followed has seen with what the log tells.
fn compare(seen: &Seen, events: &[Value]) {
    assert_eq!(seen.events.len(), events.len());
    for ((id, flat), event) in seen.events.iter().zip(events) {
        let place = event["id"].as_str().expect("id");
        assert_eq!((id.as_str(), &flat["seq"]), (place, &event["seq"]));
        for (name, value) in event["data"].as_object().expect("data") {
            assert_eq!(&flat[name], value, "{id}");
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn f1_all_who_follow_see_every_acknowledged_change_once_over_kill_9() {
    let (rounds, seed) = (setting("ARRWDB_KILL9_ROUNDS", 3), setting("ARRWDB_KILL9_SEED", 1));
    let mut site = Site::new().await;
    site.set("CHECKPOINT_BYTES", "1048576");
    // So small that those who come back read from disk.
    site.set("EVENT_BUFFER_BYTES", "65536");
    let mut server = site.start().await;
    let library = server.vector_library(3).await;
    let mut writers: Vec<Written> = (0..WRITERS).map(|_| Written::default()).collect();
    let mut followers: Vec<Seen> = (0..FOLLOWERS).map(|_| Seen::default()).collect();
    for round in 0..rounds {
        let mut random = Seeded::new(seed.wrapping_mul(1_000_003).wrapping_add(round));
        let goal = ACKNOWLEDGED_MIN + random.below(ACKNOWLEDGED_SPREAD) as u64;
        let count = Arc::new(AtomicU64::new(0));
        let following: Vec<_> = followers
            .drain(..)
            .map(|seen| {
                tokio::spawn(follow(server.client.clone(), Seeded::new(random.bits()), seen, None))
            })
            .collect();
        let writing: Vec<_> = writers
            .drain(..)
            .map(|written| {
                let (client, library) = (server.client.clone(), library.clone());
                tokio::spawn(write(
                    client,
                    library,
                    Seeded::new(random.bits()),
                    written,
                    Arc::clone(&count),
                ))
            })
            .collect();
        until("enough writes are acknowledged", async || {
            let broken = writing.iter().any(tokio::task::JoinHandle::is_finished);
            (broken || count.load(Ordering::SeqCst) >= goal).then_some(())
        })
        .await;
        assert!(server.exited().is_none(), "it lives until it is killed:\n{}", server.log());
        server.kill();
        for writer in writing {
            writers.push(writer.await.expect("a writer"));
        }
        for follower in following {
            followers.push(follower.await.expect("a follower"));
        }
        drop(server);
        server = site.start().await;
        println!("round {}: {} acknowledged", round + 1, count.load(Ordering::SeqCst));
    }
    let events = all_events(&server).await;
    verify(&events, &writers);
    for (n, seen) in followers.into_iter().enumerate() {
        let random = Seeded::new(seed + n as u64);
        compare(&follow_to_the_end(&server, random, seen, &events).await, &events);
    }
}
