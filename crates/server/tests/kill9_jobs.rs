//! `kill -9` while jobs of every kind wait and are worked on.
//!
//! - Every job that was acknowledged ends, and says exactly what it did.
//! - Every line of an import becomes one document, and the feed tells of each once.
//! - Every document that a job was to delete is gone, and told of once.
//!
//! `ARRWDB_KILL9_ROUNDS` sets the number of rounds (3), `ARRWDB_KILL9_SEED` the seed (1).

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "shared with the other tests, which use more of it")]
mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use harness::vectors::Seeded;
use harness::{Answer, Client, Server, Site, until};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

/// Clients that submit jobs.
const CLIENTS: u64 = 4;
/// The longest time that passes from the start to the kill.
const LIFE_MILLIS: usize = 700;
/// Rounds after which everything is looked at.
const ROUNDS_AT_ONCE: u64 = 10;

/// What an import was asked for.
#[derive(Debug)]
struct Import {
    library: String,
    /// Titles, each once; with the id where the caller gave one.
    lines: Vec<(String, Option<Uuid>)>,
    bad: u64,
}

/// What one client knows.
#[derive(Debug, Default)]
struct Asked {
    imports: BTreeMap<String, Import>,
    /// Jobs that were asked to delete, with the documents that were there and names of none.
    deletes: BTreeMap<String, (Vec<Uuid>, u64)>,
    others: Vec<String>,
    /// Titles of imports whose submission nobody answered: all of each or nothing.
    unanswered: Vec<Import>,
    /// Documents that are told of as deleted or not: nobody answered.
    unsure: BTreeSet<Uuid>,
    /// Documents that are there and that nobody was asked to delete.
    standing: Vec<Uuid>,
}

/// The job that was taken; nothing where the server stopped.
fn job_of(answer: &Answer) -> Option<String> {
    match answer.status {
        200 => Some(answer.json()["job_id"].as_str().expect("an id").to_owned()),
        status if status >= 500 => None,
        status => panic!("{status}: {}", answer.text()),
    }
}

async fn submitted(client: &Client, request: reqwest::RequestBuilder) -> Option<String> {
    client.try_send(request).await.as_ref().and_then(job_of)
}

/// Submits jobs until the server is gone.
async fn submit(client: Client, library: String, mut random: Seeded, mut asked: Asked) -> Asked {
    loop {
        let alive = match random.below(20) {
            kind @ 0..3 => other(&client, &library, kind, &mut random, &mut asked).await,
            3..7 => delete(&client, &mut random, &mut asked).await,
            7..9 => add(&client, &library, &mut random, &mut asked).await,
            _ => import(&client, &library, &mut random, &mut asked).await,
        };
        if alive.is_none() && client.try_get("/health").await.is_none() {
            return asked;
        }
        tokio::time::sleep(Duration::from_millis(random.below(30) as u64)).await;
    }
}

async fn import(
    client: &Client,
    library: &str,
    random: &mut Seeded,
    asked: &mut Asked,
) -> Option<()> {
    let count = if random.below(4) == 0 { 600 } else { 1 + random.below(40) };
    let mut import = Import { library: library.to_owned(), lines: Vec::new(), bad: 0 };
    let mut texts = Vec::new();
    for _ in 0..count {
        if random.below(20) == 0 {
            import.bad += 1;
            texts.push(json!({"title": "bad", "chunks": [{"text": "x", "embedding": [1]}]}));
            continue;
        }
        let title = format!("{:016x}", random.bits());
        let id = (random.below(2) == 0).then(|| Uuid::from_u64_pair(random.bits(), random.bits()));
        let chunk = json!([{"text": title, "embedding": [1, 2, 3]}]);
        texts.push(json!({"id": id, "title": title, "chunks": chunk}));
        import.lines.push((title, id));
    }
    let request = if random.below(2) == 0 {
        let mut lines = String::new();
        for text in &texts {
            writeln!(lines, "{text}").expect("a text");
        }
        let path = format!("/v1/jobs/batch-import?library_id={library}");
        let request = client.request(Method::POST, &path);
        request.header("Content-Type", "application/x-ndjson").body(lines)
    } else {
        let body = json!({"library_id": library, "documents": texts});
        client.request(Method::POST, "/v1/jobs/batch-import").json(&body)
    };
    match submitted(client, request).await {
        Some(id) => {
            asked.imports.insert(id, import);
            Some(())
        }
        None => {
            asked.unanswered.push(import);
            None
        }
    }
}

/// Adds a document that a later job may delete.
async fn add(client: &Client, library: &str, random: &mut Seeded, asked: &mut Asked) -> Option<()> {
    let documents: Vec<Value> = (0..1 + random.below(60))
        .map(|_| {
            let id = Uuid::from_u64_pair(random.bits(), random.bits());
            json!({"id": id, "title": "to go", "chunks": [{"text": "x", "embedding": [3, 2, 1]}]})
        })
        .collect();
    let path = format!("/v1/libraries/{library}/documents/batch-with-embeddings");
    let request = client.request(Method::POST, &path).json(&json!({"documents": documents}));
    let answer = client.try_send(request).await?;
    if answer.status == 201 {
        let ids = documents.iter().map(|it| it["id"].as_str().expect("id"));
        let ids = ids.map(|id| id.parse::<Uuid>().expect("id"));
        asked.standing.extend(ids);
    }
    Some(())
}

async fn delete(client: &Client, random: &mut Seeded, asked: &mut Asked) -> Option<()> {
    let count = random.below(asked.standing.len() + 1);
    let there = asked.standing.split_off(asked.standing.len() - count);
    let absent = random.below(4) as u64;
    let mut ids: Vec<String> = there.iter().map(Uuid::to_string).collect();
    for n in 0..absent {
        // Some are no ids, some name nothing, some a document for the second time.
        ids.push(match (n, there.first()) {
            (0, Some(first)) => first.to_string(),
            (1, _) => "no id".to_owned(),
            _ => Uuid::from_u64_pair(random.bits(), random.bits()).to_string(),
        });
    }
    if ids.is_empty() {
        return Some(());
    }
    let request = client.request(Method::POST, "/v1/jobs/batch-delete");
    match submitted(client, request.json(&json!({"document_ids": ids}))).await {
        Some(id) => {
            asked.deletes.insert(id, (there, absent));
            Some(())
        }
        None => {
            asked.unsure.extend(there);
            None
        }
    }
}

async fn other(
    client: &Client,
    library: &str,
    kind: usize,
    random: &mut Seeded,
    asked: &mut Asked,
) -> Option<()> {
    let (kind, body) = match kind {
        0 => {
            let format = ["json", "ndjson", "csv"][random.below(3)];
            ("batch-export", json!({"library_id": library, "format": format}))
        }
        1 => {
            let index = ["brute_force", "kd_tree"][random.below(2)];
            ("index-rebuild", json!({"library_id": library, "index_type": index}))
        }
        _ => ("index-optimize", json!({"library_id": library})),
    };
    let request = client.request(Method::POST, &format!("/v1/jobs/{kind}"));
    asked.others.push(submitted(client, request.json(&body)).await?);
    Some(())
}

/// What the feed tells of documents: how often each title was added, each id deleted.
#[derive(Debug, Default)]
struct Told {
    added: BTreeMap<String, u32>,
    deleted: BTreeMap<String, u32>,
}

impl Told {
    async fn of(client: &Client) -> Told {
        let mut told = Told::default();
        for event in client.events("document.*").await {
            let text = |name: &str| event["data"][name].as_str().expect("a text").to_owned();
            match event["type"].as_str().expect("a type") {
                "document.added" => *told.added.entry(text("title")).or_default() += 1,
                "document.deleted" => *told.deleted.entry(text("document_id")).or_default() += 1,
                other => panic!("nothing is written twice: {other} {event}"),
            }
        }
        told
    }
}

/// The result of a job that did what it was asked for.
async fn result(client: &Client, id: &str) -> Value {
    let job = client.job_over(id).await;
    assert_eq!(job["status"], "completed", "{job}");
    job["result"].clone()
}

/// Compares what became of one client's jobs with what it asked for.
async fn verify(
    client: &Client,
    asked: &Asked,
    told: &Told,
    there: &BTreeMap<String, BTreeMap<String, String>>,
) {
    for (job, import) in &asked.imports {
        let result = result(client, job).await;
        let lines = import.lines.len() as u64;
        assert_eq!(
            (result["imported"].as_u64(), result["failed"].as_u64()),
            (Some(lines), Some(import.bad)),
            "{job}: {result}"
        );
        assert_eq!(result["total_chunks"], lines, "{job}");
        for (title, id) in &import.lines {
            assert_eq!(told.added.get(title), Some(&1), "{title} of {job} is told of once");
            let found = there[&import.library].get(title);
            assert!(found.is_some(), "{title} of {job} is there");
            assert!(id.is_none_or(|id| Some(&id.to_string()) == found), "{title}: {id:?}");
        }
    }
    for import in &asked.unanswered {
        let told = import.lines.iter().filter(|(title, _)| told.added.contains_key(title)).count();
        assert!(told == 0 || told == import.lines.len(), "all of it or nothing");
    }
    for (job, (there, absent)) in &asked.deletes {
        let result = result(client, job).await;
        assert_eq!(
            (result["deleted"].as_u64(), result["failed"].as_u64()),
            (Some(there.len() as u64), Some(*absent)),
            "{job}: {result}"
        );
        for id in there {
            assert_eq!(told.deleted.get(&id.to_string()), Some(&1), "{id} of {job} is gone once");
        }
    }
    for id in &asked.standing {
        assert_eq!(told.deleted.get(&id.to_string()), None, "{id} was to stay");
    }
    for job in &asked.others {
        result(client, job).await;
    }
}

/// Ids of a library's documents by their titles.
async fn documents(client: &Client, library: &str) -> BTreeMap<String, String> {
    let answer = client.get(&format!("/v1/libraries/{library}/documents/stream")).await;
    let text = |line: &Value, name: &str| line[name].as_str().map(str::to_owned);
    let lines = answer.lines();
    lines.iter().filter_map(|line| Some((text(line, "title")?, text(line, "id")?))).collect()
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_job_ends_and_does_its_work_once_over_kill_9() {
    let (rounds, seed) = (setting("ARRWDB_KILL9_ROUNDS", 3), setting("ARRWDB_KILL9_SEED", 1));
    let mut site = Site::new().await;
    site.set("CHECKPOINT_BYTES", "1048576");
    let mut server = site.start().await;
    let mut random = Seeded::new(seed);
    let (mut jobs, mut lines) = (0, 0);
    let mut left = rounds;
    while left > 0 {
        // What was asked for is looked at now and then, with libraries that stay small.
        let libraries = [server.vector_library(3).await, server.vector_library(3).await];
        let mut clients: Vec<Asked> = (0..CLIENTS).map(|_| Asked::default()).collect();
        for _round in 0..left.min(ROUNDS_AT_ONCE) {
            clients = live(&server, &libraries, clients, &mut random).await;
            drop(server);
            server = site.start().await;
            left -= 1;
        }
        until_idle(&server).await;
        let told = Told::of(&server).await;
        let mut there = BTreeMap::new();
        for library in libraries {
            let found = documents(&server, &library).await;
            there.insert(library, found);
        }
        for asked in &clients {
            verify(&server, asked, &told, &there).await;
            jobs += asked.imports.len() + asked.deletes.len() + asked.others.len();
            lines += asked.imports.values().map(|import| import.lines.len()).sum::<usize>();
        }
        until("what jobs worked on is removed", async || {
            let inputs = std::fs::read_dir(site.data_dir.join("work").join("jobs"));
            (inputs.expect("a folder").count() == 0).then_some(())
        })
        .await;
        println!("{} rounds: {jobs} jobs acknowledged, {lines} documents to add", rounds - left);
    }
}

/// Clients submit until the server is killed, at a random moment.
async fn live(
    server: &Server,
    libraries: &[String],
    clients: Vec<Asked>,
    random: &mut Seeded,
) -> Vec<Asked> {
    let mut submitting = Vec::new();
    for (n, asked) in clients.into_iter().enumerate() {
        let (client, library) = (server.client.clone(), libraries[n % libraries.len()].clone());
        let random = Seeded::new(random.bits());
        submitting.push(tokio::spawn(submit(client, library, random, asked)));
    }
    // A random moment: there is no condition to wait for.
    tokio::time::sleep(Duration::from_millis(random.below(LIFE_MILLIS) as u64)).await;
    assert!(server.exited().is_none(), "it lives until it is killed:\n{}", server.log());
    server.kill();
    let mut clients = Vec::new();
    for client in submitting {
        clients.push(client.await.expect("a client"));
    }
    clients
}

/// Waits until no job is left, as long as they become fewer.
async fn until_idle(client: &Client) {
    let mut least = u64::MAX;
    while least > 0 {
        least = until("another job is over", async || {
            let stats = client.get("/v1/jobs/stats/queue").await.expect(200);
            let number = |name: &str| stats[name].as_u64().expect("a number");
            let left = number("pending_jobs") + number("running_jobs");
            (left < least).then_some(left)
        })
        .await;
    }
}
