//! `backup` and `restore`: the real binary beside a running server, to a folder and to S3.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::harness::store::{BUCKET, Store};
use crate::harness::{Server, Site};

/// Runs the binary: whether it succeeded, its output and its remarks.
fn run(site: &Site, arguments: &[&str]) -> (bool, String, String) {
    let mut command = site.command();
    command.args(arguments);
    let output = tokio::task::block_in_place(|| command.output().expect("the command runs"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// What a server has, in an order of its own: every document of every library.
async fn contents(server: &Server) -> Vec<String> {
    let mut found = Vec::new();
    for library in server.get("/v1/libraries").await.expect(200).as_array().expect("libraries") {
        let id = library["id"].as_str().expect("id");
        let path = format!("/v1/libraries/{id}/documents/stream?include_embeddings=true");
        let lines = server.get(&path).await.text();
        // All but the last line, which counts them.
        let documents: Vec<&str> = lines.lines().collect();
        let documents = &documents[..documents.len() - 1];
        found.extend(documents.iter().map(|line| format!("{id} {line}")));
    }
    found.sort();
    found
}

/// A server on a directory of its own.
async fn serve(data_dir: &Path) -> (Site, Server) {
    let mut site = Site::bare();
    site.data_dir = data_dir.to_owned();
    let server = site.start().await;
    (site, server)
}

/// Adds a document of one vector; the number of the write.
async fn add(server: &Server, library: &str, n: u32) -> u64 {
    let path = format!("/v1/libraries/{library}/documents/with-embeddings");
    let vector = [n as f32 + 1.0, 1.0, 2.0, 3.0];
    let chunks = json!([{ "text": format!("text {n}"), "embedding": vector }]);
    let body = json!({ "title": format!("d{n}"), "chunks": chunks });
    let answer = server.post(&path, &body).await;
    answer.expect(201);
    answer.seq()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Backs a server up to `target` and restores it: while it runs, after more writes, to a number
/// in between, with a listing, and with old points forgotten.
async fn round_trip(site: &Site, target: &str) {
    let server = Arc::new(site.start().await);
    let library = server.vector_library(4).await;
    for n in 0..20 {
        add(&server, &library, n).await;
    }
    let at_first = contents(&server).await;
    let (ok, shown, said) = run(site, &["backup", target, "--verify"]);
    assert!(ok, "{said}");
    assert!(said.contains("Verified by restoring: 1 library with 20 documents"), "{said}");
    assert_eq!(shown, "Restore point 21\n");
    let middle = add(&server, &library, 20).await;
    let at_middle = contents(&server).await;

    // A backup while writes go on.
    let stop = Arc::new(AtomicBool::new(false));
    let (writing, on, ended) = (server.clone(), library.clone(), stop.clone());
    let writer = tokio::spawn(async move {
        for n in 100.. {
            if ended.load(Ordering::SeqCst) {
                return n - 100;
            }
            add(&writing, &on, n).await;
        }
        0
    });
    let (ok, _, said) = run(site, &["backup", target, "--verify"]);
    assert!(ok, "{said}");
    stop.store(true, Ordering::SeqCst);
    let written = writer.await.expect("the writer");
    assert!(written > 0);
    let at_last = contents(&server).await;
    let (ok, _, said) = run(site, &["backup", target]);
    assert!(ok, "{said}");
    server.kill();

    let (ok, listed, said) = run(site, &["backup", target, "--list"]);
    assert!(ok && listed.lines().count() >= 3, "{listed}{said}");
    assert!(listed.contains(" 21 "), "{listed}");
    let number = middle.to_string();
    let states: [(&str, &[&str], &Vec<String>); 3] = [
        ("newest", &[], &at_last),
        ("middle", &["--to-seq", &number], &at_middle),
        ("first", &["--point", "21"], &at_first),
    ];
    for (name, more, expected) in states {
        let dir = site.path(name);
        let (ok, _, said) = run(site, &[&["restore", target, &text(&dir)], more].concat());
        assert!(ok, "{said}");
        let (_site, copy) = serve(&dir).await;
        assert_eq!(contents(&copy).await, *expected, "{name}");
        let seq = add(&copy, &library, 7000).await;
        assert!(seq > 1_000_000_000, "{seq}");
    }
    refusals(site, target);
    forget(site, target, &at_last).await;
}

/// What cannot be restored says why.
fn refusals(site: &Site, target: &str) {
    let dir = text(&site.path("newest"));
    let (ok, _, said) = run(site, &["restore", target, &dir]);
    assert!(!ok && said.contains("not empty"), "{said}");
    let beyond = text(&site.path("beyond"));
    let (ok, _, said) = run(site, &["restore", target, &beyond, "--to-seq", "99999"]);
    assert!(!ok && said.contains("the backup reaches from"), "{said}");
    let past = ["restore", target, &beyond, "--to-time", "2001-01-01T00:00:00Z"];
    let (ok, _, said) = run(site, &past);
    assert!(!ok && said.contains("before the first restore point"), "{said}");
}

/// Old restore points are forgotten, and the newest is still whole.
async fn forget(site: &Site, target: &str, at_last: &[String]) {
    let (ok, _, said) = run(site, &["backup", target, "--keep", "1"]);
    assert!(ok && said.contains("Forgot"), "{said}");
    let (_, listed, _) = run(site, &["backup", target, "--list"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    let kept = site.path("kept");
    let (ok, _, said) = run(site, &["restore", target, &text(&kept)]);
    assert!(ok, "{said}");
    let (_site, copy) = serve(&kept).await;
    assert_eq!(contents(&copy).await, at_last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_server_is_backed_up_to_a_folder_and_restored() {
    let site = Site::bare();
    let folder = text(&site.path("backup"));
    round_trip(&site, &folder).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_server_is_backed_up_to_s3_and_restored() {
    let store = Store::start().await;
    let mut site = Site::bare();
    for (name, value) in store.variables("test-secret") {
        site.set(name, &value);
    }
    round_trip(&site, &format!("s3://{BUCKET}/some/prefix")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_segment_goes_to_s3_in_parts_and_damage_there_is_named() {
    let store = Store::start().await;
    let mut site = Site::bare();
    for (name, value) in store.variables("test-secret") {
        site.set(name, &value);
    }
    let server = site.start().await;
    let library = server.vector_library(4096).await;
    // Of 4,096 numbers each, 1,200 vectors make a segment of about 20 MB.
    let lines: Vec<String> = (0..120_u32)
        .map(|document| {
            let chunk = |part: u32| {
                let vector: Vec<u32> =
                    (0..4096).map(|at| (at * 31 + part + document) % 97).collect();
                json!({ "text": format!("part {part}"), "embedding": vector })
            };
            let chunks: Vec<Value> = (0..10).map(chunk).collect();
            json!({ "title": format!("d{document}"), "chunks": chunks }).to_string()
        })
        .collect();
    let path = format!("/v1/libraries/{library}/documents/stream");
    let answer = server.raw(reqwest::Method::POST, &path, lines.join("\n")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let before = contents(&server).await;
    assert_eq!(before.len(), 120);
    server.terminate();
    server.ended().await;
    let target = format!("s3://{BUCKET}/large");
    let (ok, _, said) = run(&site, &["backup", &target, "--verify"]);
    assert!(ok, "{said}");
    let dir = store.folder("large").join("libraries").join(&library);
    let files = fs::read_dir(&dir).expect("the library's objects");
    let paths: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    let is_segment = |path: &&PathBuf| path.extension().is_some_and(|it| it == "seg");
    let segment = paths.iter().find(is_segment).expect("a segment");
    let mut bytes = fs::read(segment).expect("its bytes");
    assert!(bytes.len() > 16 << 20, "{} bytes", bytes.len());
    let restored = site.path("restored");
    let (ok, _, said) = run(&site, &["restore", &target, &text(&restored)]);
    assert!(ok, "{said}");
    let (_site, copy) = serve(&restored).await;
    assert_eq!(contents(&copy).await, before);

    let place = bytes.len() / 2;
    bytes[place] ^= 1;
    fs::write(segment, bytes).expect("damaged");
    let (ok, _, said) = run(&site, &["restore", &target, &text(&site.path("damaged"))]);
    let name = segment.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(!ok && said.contains(&name) && said.contains("damaged"), "{said}");
    let refused =
        site.command().arg("serve").env("VECTOR_DB_DATA_DIR", site.path("damaged")).output();
    assert!(!refused.expect("the server").status.success(), "half a directory is not opened");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_refuses_says_why() {
    let store = Store::start().await;
    let mut site = Site::bare();
    let server = site.start().await;
    server.vector_library(4).await;
    for (name, value) in store.variables("wrong-secret") {
        site.set(name, &value);
    }
    let (ok, _, said) = run(&site, &["backup", &format!("s3://{BUCKET}/x")]);
    assert!(!ok && said.contains("SignatureDoesNotMatch"), "{said}");
    for (name, value) in store.variables("test-secret") {
        site.set(name, &value);
    }
    let (ok, _, said) = run(&site, &["backup", "s3://absent/x"]);
    assert!(!ok && said.contains("NoSuchBucket"), "{said}");
    let (ok, _, said) = run(&site, &["backup", "gs://bucket/x"]);
    assert!(!ok && said.contains("gs:// is not a place for backups"), "{said}");
    let nowhere = text(&site.path("nowhere"));
    let (ok, _, said) = run(&site, &["backup", "x", "--data-dir", &nowhere]);
    assert!(!ok && said.contains("not a data directory"), "{said}");
}
