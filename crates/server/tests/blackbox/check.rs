//! `arrwdb check` on the directories of real servers.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{Server, Site};

/// Runs `arrwdb check`: its exit code, its output and its remarks.
fn check(site: &Site, arguments: &[&str]) -> (i32, String, String) {
    let mut command = site.command();
    command.arg("check").args(arguments).stdin(std::process::Stdio::null());
    let output = tokio::task::block_in_place(|| command.output().expect("the command runs"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("a code"), text(&output.stdout), text(&output.stderr))
}

fn report(site: &Site, arguments: &[&str]) -> (i32, Value) {
    let arguments = [&["--json"], arguments].concat();
    let (code, out, said) = check(site, &arguments);
    let report = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{said}"));
    (code, report)
}

/// A server with two libraries and some documents; with a restart in between if asked for.
async fn filled(site: &Site) -> Server {
    let server = site.start().await;
    for _library in 0..2 {
        let library = server.library().await;
        for n in 0..8 {
            let new = json!({ "title": format!("title {n}"), "text": format!("text number {n}") });
            server.post(&format!("/v1/libraries/{library}/documents"), &new).await.expect(201);
        }
    }
    server
}

async fn stop(server: Server) {
    server.terminate();
    assert!(server.ended().await.success());
}

/// Files below a directory whose paths contain a text, in order.
fn named(dir: &Path, part: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(named(&path, part));
        } else if path.to_string_lossy().contains(part) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1], at).expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_checked_once_its_server_is_gone() {
    let site = Site::new().await;
    let (code, _, said) = check(&site, &[]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("is not a data directory"), "{said}");
    let server = filled(&site).await;
    let (code, _, said) = check(&site, &[]);
    assert_eq!(code, 2, "{said}");
    let pid = format!("process {}", server.pid());
    assert!(said.contains("Stop that server") && said.contains(&pid), "{said}");
    server.kill();
    let (code, out, said) = check(&site, &[]);
    assert_eq!(code, 0, "{out}{said}");
    assert!(out.contains("2 libraries, 16 documents") && out.contains("is sound"), "{out}");
    stop(site.start().await).await;
    let (code, found) = report(&site, &[]);
    assert_eq!((code, &found["sound"]), (0, &json!(true)), "{found}");
    assert_eq!(found["findings"], json!([]), "{found}");
    assert_eq!(found["libraries"].as_array().map(Vec::len), Some(2));
    assert_eq!(found["libraries"][0]["documents"], 8);
    // A directory can be named; one that cannot be read is not called damaged.
    let (code, _, _) = check(&site, &[&site.data_dir.display().to_string()]);
    assert_eq!(code, 0);
    let (code, _, said) = check(&site, &["/nowhere"]);
    assert!(code == 2 && said.contains("/nowhere"), "{code} {said}");
    assert_eq!(check(&site, &["--yes"]).0, 2, "it needs --repair");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_named_by_file_and_byte_and_what_to_do() {
    let site = Site::new().await;
    stop(filled(&site).await).await;
    for part in ["VERSION", "catalog-", "manifest-", ".seg", ".log"] {
        let path = named(&site.data_dir, part).remove(0);
        flip(&path, 20);
        let (code, out, said) = check(&site, &[]);
        assert_eq!(code, 1, "{part}: {out}{said}");
        let file = path.strip_prefix(&site.data_dir).expect("within").display().to_string();
        assert!(out.contains(&file) && out.contains("damaged"), "{part}: {out}");
        assert!(out.contains("from a backup"), "{part}: {out}");
        let (code, found) = report(&site, &[]);
        assert_eq!((code, &found["sound"]), (1, &json!(false)));
        assert_eq!(found["findings"][0]["path"], path.display().to_string(), "{found}");
        assert!(found["findings"][0]["offset"].is_number(), "{found}");
        // The server names the same file and the same command; a segment's file when its library is
        // used first.
        if part == ".seg" {
            let server = site.start().await;
            let library = server.get("/v1/libraries").await.expect(200)[0]["id"].clone();
            let library = library.as_str().expect("id").to_owned();
            let refused = server.get(&format!("/v1/libraries/{library}")).await.expect(500);
            let detail = refused["detail"].as_str().expect("detail").to_owned();
            assert!(!detail.contains(&file), "what callers read does not name files: {detail}");
            let log = server.log();
            assert!(log.contains(&file), "{log}");
            stop(server).await;
        } else {
            let server = site.spawn();
            assert!(!server.ended().await.success());
            let log = server.log();
            assert!(log.contains(&file) && log.contains("arrwdb check"), "{part}: {log}");
        }
        flip(&path, 20);
    }
    assert_eq!(check(&site, &[]).0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_is_shown_first_and_loses_nothing() {
    let site = Site::new().await;
    stop(filled(&site).await).await;
    let left_over = site.data_dir.join("catalog/catalog-00000000000000000001.tmp");
    fs::write(&left_over, "left over").expect("written");
    let cache = named(&site.data_dir, "embeddings-young").remove(0);
    flip(&cache, 30);
    let (code, out, said) = check(&site, &["--repair"]);
    assert_eq!(code, 1, "{out}{said}");
    assert!(out.contains("remove catalog/catalog-00000000000000000001.tmp"), "{out}");
    assert!(said.contains("--yes") && left_over.exists() && cache.exists(), "{said}");
    let (code, found) = report(&site, &["--repair"]);
    assert_eq!((code, found["planned"].as_array().map(Vec::len)), (1, Some(2)), "{found}");
    let (code, out, said) = check(&site, &["--repair", "--yes"]);
    assert_eq!(code, 0, "{out}{said}");
    assert!(!left_over.exists() && !cache.exists(), "{out}");
    let (code, out, _) = check(&site, &["--repair", "--yes"]);
    assert_eq!(code, 0, "{out}");
    stop(site.start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_records_are_given_up_only_when_told_so() {
    let site = Site::new().await;
    let server = filled(&site).await;
    let library = server.get("/v1/libraries").await.expect(200)[0]["id"].clone();
    let library = library.as_str().expect("id").to_owned();
    stop(server).await;
    let log = named(&site.data_dir, ".log").remove(0);
    flip(&log, 700);
    let (code, out, _) = check(&site, &["--repair", "--yes"]);
    assert!(code == 1 && out.contains("--accept-loss"), "{out}");
    let (code, found) = report(&site, &["--repair", "--accept-loss", "--yes"]);
    assert_eq!(code, 0, "{found}");
    let lost = found["done"].to_string();
    assert!(lost.contains("these sequence numbers are lost: "), "{lost}");
    assert_eq!(named(&site.data_dir, ".log.damaged").len(), 1);
    let server = site.start().await;
    let path = format!("/v1/libraries/{library}/documents");
    assert_eq!(server.get(&path).await.expect(200)["total"], 8, "its manifest has them all");
    server.post(&path, &json!({ "title": "a", "text": "b" })).await.expect(201);
    stop(server).await;
    assert_eq!(check(&site, &[]).0, 0);
}
