//! `kill -9` in the middle of everything: several clients add, replace and delete documents, the
//! server is killed, started again on the same directory and asked for all of it.
//!
//! - Every acknowledged write is there byte for byte (text, metadata, the bits of the vectors), and
//!   its vectors find it.
//! - A write that was under way is there as a whole or not at all.
//! - Sequence numbers go on from where they were.
//!
//! `ARRWDB_KILL9_ROUNDS` sets the number of rounds (5), `ARRWDB_KILL9_SEED` the seed (1).

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "shared with the other tests, which use more of it")]
mod harness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt;
use futures_util::stream;
use harness::vectors::Seeded;
use harness::{Client, Site, until};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

const CLIENTS: u64 = 6;
const DIMENSION: usize = 12;
/// Live documents of one client, about.
const POPULATION: usize = 60;
/// Acknowledged writes before a kill.
const ACKNOWLEDGED_MIN: u64 = 60;
const ACKNOWLEDGED_SPREAD: usize = 400;

/// What a document holds; `None` in the model means that it is not there.
#[derive(Clone, Debug, PartialEq)]
struct Content {
    title: String,
    tags: Vec<String>,
    custom: Value,
    chunks: Vec<(String, Vec<u32>)>,
}

impl Content {
    fn random(random: &mut Seeded) -> Content {
        let mark = random.bits();
        let chunk = |at: usize, random: &mut Seeded| {
            let filler = "lorem ipsum \u{e9}\u{6f22} ".repeat(random.below(60));
            let vector = random.vector(DIMENSION).into_iter().map(f32::to_bits).collect();
            (format!("{mark:x} {at} {filler}."), vector)
        };
        let count = 1 + random.below(3);
        Content {
            title: format!("title {mark:x}"),
            tags: (0..random.below(3)).map(|n| format!("tag{n}-{mark:x}")).collect(),
            custom: json!({ "mark": mark, "nested": { "list": [1, 2.5, null, "x"] } }),
            chunks: (0..count).map(|at| chunk(at, random)).collect(),
        }
    }

    fn request(&self, id: Uuid) -> Value {
        let chunks = self.chunks.iter().map(|(text, vector)| {
            let vector: Vec<f32> = vector.iter().map(|&bits| f32::from_bits(bits)).collect();
            json!({ "text": text, "embedding": vector })
        });
        json!({
            "id": id, "title": self.title, "tags": self.tags, "metadata": self.custom,
            "chunks": chunks.collect::<Vec<_>>(),
        })
    }

    fn of(document: &Value) -> Content {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let metadata = &document["metadata"];
        let chunk = |chunk: &Value| {
            let vector: Vec<f32> =
                serde_json::from_value(chunk["embedding"].clone()).expect("a vector");
            (text(&chunk["text"]), vector.into_iter().map(f32::to_bits).collect())
        };
        Content {
            title: text(&metadata["title"]),
            tags: metadata["tags"].as_array().expect("tags").iter().map(text).collect(),
            custom: metadata["custom"].clone(),
            chunks: document["chunks"].as_array().expect("chunks").iter().map(chunk).collect(),
        }
    }
}

/// What one client knows of its documents, which no other client touches.
#[derive(Debug, Default)]
struct Model {
    /// The last acknowledged state of every document ever written.
    known: BTreeMap<Uuid, Option<Content>>,
    /// What a write that was not answered may have made of it.
    doubtful: BTreeMap<Uuid, Option<Content>>,
    /// The largest sequence number seen.
    seq: u64,
}

impl Model {
    fn live(&self) -> Vec<Uuid> {
        self.known.iter().filter(|(_, state)| state.is_some()).map(|(id, _)| *id).collect()
    }

    fn settle(&mut self, writes: Vec<(Uuid, Option<Content>)>) {
        for (id, state) in writes {
            self.known.insert(id, state);
        }
    }

    fn doubt(&mut self, writes: Vec<(Uuid, Option<Content>)>) {
        for (id, state) in writes {
            self.known.entry(id).or_insert(None);
            self.doubtful.insert(id, state);
        }
    }
}

/// Writes until the server is gone.
async fn write(
    client: Client,
    library: String,
    mut random: Seeded,
    mut model: Model,
    count: Arc<AtomicU64>,
) -> Model {
    loop {
        let (writes, answer) = one_write(&client, &library, &mut random, &model).await;
        let Some(answer) = answer else {
            model.doubt(writes);
            return model;
        };
        if answer.status >= 500 {
            // Refused while stopping or busy: nothing is promised about it.
            model.doubt(writes);
            return model;
        }
        assert!((200..300).contains(&answer.status), "{}: {}", answer.status, answer.text());
        let seq = answer.seq();
        assert!(seq > model.seq, "sequence numbers increase: {seq} after {}", model.seq);
        model.seq = seq;
        model.settle(writes);
        count.fetch_add(1, Ordering::SeqCst);
    }
}

type Writes = Vec<(Uuid, Option<Content>)>;

async fn one_write(
    client: &Client,
    library: &str,
    random: &mut Seeded,
    model: &Model,
) -> (Writes, Option<harness::Answer>) {
    let live = model.live();
    let pick = |random: &mut Seeded| live.get(random.below(live.len().max(1))).copied();
    let new = |random: &mut Seeded| Uuid::from_u64_pair(random.bits(), random.bits());
    let crowded = live.len() > POPULATION;
    let documents = format!("/v1/libraries/{library}/documents");
    match (random.below(10), pick(random)) {
        (0..=7, Some(id)) if crowded || random.below(10) < 3 => {
            let request = client.request(Method::DELETE, &format!("{documents}/{id}"));
            (vec![(id, None)], client.try_send(request).await)
        }
        (8..=9, _) => {
            let writes: Vec<(Uuid, Content)> =
                (0..=random.below(5)).map(|_| (new(random), Content::random(random))).collect();
            let bodies: Vec<Value> = writes.iter().map(|(id, doc)| doc.request(*id)).collect();
            let request =
                client.request(Method::POST, &format!("{documents}/batch-with-embeddings"));
            let answer = client.try_send(request.json(&json!({ "documents": bodies }))).await;
            (writes.into_iter().map(|(id, doc)| (id, Some(doc))).collect(), answer)
        }
        (kind, existing) => {
            let id = existing.filter(|_| kind < 4).unwrap_or_else(|| new(random));
            let content = Content::random(random);
            let request = client.request(Method::POST, &format!("{documents}/with-embeddings"));
            let answer = client.try_send(request.json(&content.request(id))).await;
            (vec![(id, Some(content))], answer)
        }
    }
}

/// Compares the server with the model and settles what was in doubt.
async fn verify(client: &Client, library: &str, model: &mut Model) {
    let ids: Vec<Uuid> = model.known.keys().copied().collect();
    let found: Vec<(Uuid, Option<Content>)> = stream::iter(ids)
        .map(|id| async move {
            let answer = client.get(&format!("/v1/libraries/{library}/documents/{id}")).await;
            match answer.status {
                404 => (id, None),
                _ => (id, Some(Content::of(&answer.expect(200)))),
            }
        })
        .buffer_unordered(16)
        .collect()
        .await;
    for (id, found) in found {
        let known = model.known.get(&id).expect("asked for what is known").clone();
        if found == known {
            continue;
        }
        match model.doubtful.get(&id) {
            Some(possible) if *possible == found => {
                model.known.insert(id, found);
            }
            possible => panic!(
                "document {id} is\n{found:?}\nwhile the acknowledged state is\n{known:?}\n\
                 and the unanswered write was\n{possible:?}"
            ),
        }
    }
    model.doubtful.clear();
    let live: Vec<(Uuid, Content)> =
        model.known.iter().filter_map(|(id, state)| Some((*id, state.clone()?))).collect();
    stream::iter(live)
        .for_each_concurrent(16, |(id, content)| async move {
            for (text, vector) in &content.chunks {
                finds_itself(client, library, (id, text), vector).await;
            }
        })
        .await;
}

/// A chunk's own vector finds it at a distance of nothing but rounding.
async fn finds_itself(client: &Client, library: &str, (id, text): (Uuid, &str), vector: &[u32]) {
    let vector: Vec<f32> = vector.iter().map(|&bits| f32::from_bits(bits)).collect();
    let path = format!("/v1/libraries/{library}/search/embedding");
    let answer = client.post(&path, &json!({ "embedding": vector, "k": 1 })).await.expect(200);
    let hit = &answer["results"][0];
    assert_eq!(hit["document_id"], id.to_string(), "{answer}");
    assert_eq!(hit["chunk"]["text"], text);
    assert!(hit["distance"].as_f64().expect("distance").abs() < 1e-5, "{hit}");
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn l1_every_acknowledged_write_survives_kill_9() {
    let (rounds, seed) = (setting("ARRWDB_KILL9_ROUNDS", 5), setting("ARRWDB_KILL9_SEED", 1));
    let mut site = Site::new().await;
    // Small checkpoints, so that kills fall into them too.
    site.set("CHECKPOINT_BYTES", "1048576");
    let mut server = site.start().await;
    let library = server.vector_library(DIMENSION).await;
    let mut models: Vec<Model> = (0..CLIENTS).map(|_| Model::default()).collect();
    for round in 0..rounds {
        let mut random = Seeded::new(seed.wrapping_mul(1_000_003).wrapping_add(round));
        let goal = ACKNOWLEDGED_MIN + random.below(ACKNOWLEDGED_SPREAD) as u64;
        let count = Arc::new(AtomicU64::new(0));
        let seq = models.iter().map(|model| model.seq).max().unwrap_or_default();
        let writers: Vec<_> = models
            .drain(..)
            .map(|mut model| {
                // Whoever writes next is after everything acknowledged before the kill.
                model.seq = seq;
                let (client, library) = (server.client.clone(), library.clone());
                let random = Seeded::new(random.bits());
                tokio::spawn(write(client, library, random, model, Arc::clone(&count)))
            })
            .collect();
        until("enough writes are acknowledged", async || {
            let broken = writers.iter().any(tokio::task::JoinHandle::is_finished);
            (broken || count.load(Ordering::SeqCst) >= goal).then_some(())
        })
        .await;
        assert!(server.exited().is_none(), "it lives until it is killed:\n{}", server.log());
        server.kill();
        for writer in writers {
            models.push(writer.await.expect("a writer"));
        }
        let acknowledged = count.load(Ordering::SeqCst);
        assert!(acknowledged >= goal, "a writer gave up early:\n{}", server.log());
        drop(server);
        server = site.start().await;
        let doubtful: usize = models.iter().map(|model| model.doubtful.len()).sum();
        for model in &mut models {
            verify(&server, &library, model).await;
        }
        let live: usize = models.iter().map(|model| model.live().len()).sum();
        let overview = server.get(&format!("/v1/libraries/{library}/documents?page_size=1")).await;
        assert_eq!(overview.expect(200)["total"], live);
        println!(
            "round {}: {acknowledged} acknowledged, {doubtful} documents in doubt, {live} live",
            round + 1
        );
    }
}
