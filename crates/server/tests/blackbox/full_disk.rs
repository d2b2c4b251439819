//! The whole server on a small file system that is really full.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::jobs::occupy;
use crate::harness::{Server, Site, until};

/// A file system of its own, in memory; unmounted when dropped.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    /// `None` where this process may not mount, after saying so.
    fn new(path: &'a Path, mebibytes: u32) -> Option<Mount<'a>> {
        fs::create_dir_all(path).expect("a directory");
        let size = format!("size={mebibytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Mount(path)),
            refused => {
                eprintln!("SKIPPED: mounting a file system needs root: {refused:?}");
                None
            }
        }
    }

    /// Fills it until so many KiB are left.
    fn fill(&self, kib_left: u64) {
        let mut file = fs::File::create(self.0.join("filler")).expect("a file");
        let block = vec![1; 64 << 10];
        while self.kib_free() > kib_left {
            let room = usize::try_from((self.kib_free() - kib_left) << 10).expect("small");
            if file.write_all(&block[..room.min(block.len())]).is_err() {
                break;
            }
        }
    }

    fn kib_free(&self) -> u64 {
        let output = Command::new("df").args(["--output=avail", "-k"]).arg(self.0).output();
        let text = String::from_utf8_lossy(&output.expect("df").stdout).into_owned();
        text.lines().last().expect("a line").trim().parse().expect("a number")
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).expect("the filler");
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        // Lazily: a server that is being killed may still have it open.
        drop(Command::new("umount").arg("-l").arg(self.0).status());
    }
}

struct Writes {
    library: String,
    acknowledged: Vec<String>,
}

impl Writes {
    /// One write of some 20 KB; its status.
    async fn write(&mut self, server: &Server) -> u16 {
        let title = format!("document {}", self.acknowledged.len());
        let chunk = json!({ "text": "x".repeat(10_000), "embedding": [1, 0] });
        let body = json!({ "title": title, "chunks": [chunk.clone(), chunk] });
        let path = format!("/v1/libraries/{}/documents/with-embeddings", self.library);
        let answer = server.post(&path, &body).await;
        match answer.status {
            201 => self.acknowledged.push(title),
            507 => {
                answer.problem(507, "DiskFullError");
            }
            // A backlog that cannot be written out is a full queue, which may be tried again.
            503 => assert!(answer.header("retry-after").is_some(), "{}", answer.text()),
            status => panic!("{status}: {}", answer.text()),
        }
        answer.status
    }

    async fn check(&self, server: &Server) {
        let path = format!("/v1/libraries/{}/documents/stream", self.library);
        let exported = server.get(&path).await.text();
        let lines = exported.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let titles: Vec<String> =
            lines.filter_map(|line| line["title"].as_str().map(str::to_owned)).collect();
        for title in &self.acknowledged {
            assert!(titles.contains(title), "{title} is lost");
        }
        let found = server.find(&self.library, &json!({ "embedding": [1, 0] })).await.expect(200);
        assert_eq!(found["total_results"], 10.min(2 * titles.len()));
    }
}

/// Writes until the disk is full, frees it, goes on, and starts again on what is there.
async fn rehearse(disk_free_bytes_min: &str, kib_left: u64) {
    let mut site = Site::new().await;
    let data_dir = site.data_dir.clone();
    let Some(mount) = Mount::new(&data_dir, 96) else { return };
    site.set("DISK_FREE_BYTES_MIN", disk_free_bytes_min);
    site.set("CHECKPOINT_BYTES", "1048576");
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let mut writes = Writes { library, acknowledged: Vec::new() };
    for _ in 0..20 {
        assert_eq!(writes.write(&server).await, 201);
    }
    mount.fill(kib_left);
    until("writes are refused", async || (writes.write(&server).await == 507).then_some(())).await;
    writes.check(&server).await;
    server.get("/health").await.expect(200);
    mount.free();
    until("writes go on", async || (writes.write(&server).await == 201).then_some(())).await;
    for _ in 0..20 {
        assert_eq!(writes.write(&server).await, 201, "{}", server.log());
    }
    writes.check(&server).await;
    server.kill();
    drop(server);
    let server = site.start().await;
    writes.check(&server).await;
    assert_eq!(writes.write(&server).await, 201);
    server.terminate();
    assert!(server.ended().await.success(), "{}", server.log());
    drop(server);
    drop(mount);
}

/// A job that was submitted while there was room waits until there is room again.
#[tokio::test]
async fn a_job_waits_for_room_on_a_full_disk() {
    let mut site = Site::new().await;
    let data_dir = site.data_dir.clone();
    let Some(mount) = Mount::new(&data_dir, 96) else { return };
    site.set("DISK_FREE_BYTES_MIN", "33554432");
    site.set("JOB_QUEUE_MAX_WORKERS", "1");
    let server = site.start().await;
    let library = server.library().await;
    let provider = site.provider.as_ref().expect("provider");
    provider.set_stuck(true);
    occupy(&server, &library).await;
    let text = |n: usize| json!({"title": format!("{n}"), "text": format!("text {n}")});
    let documents: Vec<Value> = (0..100).map(text).collect();
    let body = json!({"library_id": library, "documents": documents, "max_retries": 0});
    let id = server.submit("batch-import", &body).await;
    mount.fill(16 << 10);
    until("jobs are refused", async || {
        let body = json!({"document_ids": ["x"], "run_at": "2999-01-01T00:00:00Z"});
        let answer = server.post("/v1/jobs/batch-delete", &body).await;
        (answer.status == 507).then(|| answer.problem(507, "DiskFullError"))
    })
    .await;
    provider.set_stuck(false);
    until("it waits for room", async || {
        let job = server.job(&id).await;
        assert!(job["completed_at"].is_null(), "it is not over: {job}");
        (job["status"] == "pending" && job["error"].is_string()).then_some(())
    })
    .await;
    mount.free();
    let job = server.job_over(&id).await;
    assert_eq!((&job["result"]["imported"], &job["result"]["failed"]), (&json!(100), &json!(0)));
    assert_eq!(server.events("document.added").await.len(), 101);
    server.terminate();
    assert!(server.ended().await.success(), "{}", server.log());
    drop(server);
    drop(mount);
}

#[tokio::test]
async fn a_nearly_full_disk_refuses_writes_until_there_is_room_again() {
    rehearse("33554432", 16 << 10).await;
}

#[tokio::test]
async fn a_disk_that_is_full_to_the_last_byte_loses_nothing() {
    rehearse("0", 0).await;
}
