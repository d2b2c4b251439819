//! The real local model, end to end: meaning, not words.

use std::process::Stdio;

use serde_json::json;

use crate::harness::Site;

#[tokio::test]
async fn a_passage_is_found_by_what_it_means() {
    let site = Site::with_local_model();
    let server = site.start().await;
    let library = server.library().await;
    let body = json!({ "title": "facts", "texts": [
        "The cat lies on the sofa and purrs.",
        "Stock markets fell sharply on Monday.",
        "Water boils at one hundred degrees.",
    ]});
    let added = server.post(&format!("/v1/libraries/{library}/documents"), &body).await.expect(201);
    assert_eq!(added["chunks"][0]["embedding"].as_array().expect("a vector").len(), 384);
    for (query, at) in [
        ("a pet resting on furniture", 0),
        ("share prices dropped", 1),
        ("temperature of steam", 2),
    ] {
        let body = json!({ "query": query, "k": 1 });
        let found =
            server.post(&format!("/v1/libraries/{library}/search"), &body).await.expect(200);
        assert_eq!(found["results"][0]["chunk"]["metadata"]["chunk_index"], at, "{query}: {found}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_imports_searches_and_says_what_next() {
    let site = Site::with_local_model();
    let docs = site.path("docs");
    std::fs::create_dir_all(&docs).expect("a folder");
    for (name, text) in [
        (
            "locks.md",
            "# locks\n\nA mutex gives one thread at a time exclusive access to shared data.",
        ),
        ("bars.md", "# bars\n\nProgress bars tell users how much of the work is done."),
        ("maps.md", "# maps\n\nA hash table that iterates its entries by insertion."),
        ("pool.md", "# pool\n\nData parallelism: turn an iterator into a parallel one."),
        ("zip.md", "# zip\n\nCompression and decompression with deflate."),
    ] {
        std::fs::write(docs.join(name), text).expect("a file");
    }
    let mut command = site.command();
    command.args(["demo", "--once", "--docs"]).arg(&docs).arg("--data-dir").arg(site.path("demo"));
    let output =
        tokio::task::block_in_place(|| command.stdin(Stdio::null()).output().expect("it ran"));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    assert!(shown.contains("Imported 5 documents"), "{shown}");
    let expected = ["maps", "bars", "pool", "zip", "locks"];
    let searches: Vec<&str> = shown.split("\n> ").skip(1).collect();
    assert_eq!(searches.len(), expected.len(), "{shown}");
    for (search, title) in searches.iter().zip(expected) {
        let first = search.lines().nth(1).expect("a hit");
        assert!(first.ends_with(title), "{title} for {search}");
    }
    assert!(shown.contains("/docs") && shown.contains("curl "), "{shown}");
}
