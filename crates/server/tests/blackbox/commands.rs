//! `import`, `search`, `export`: the command line against a running server.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Server, Site, free_port};

/// Runs the binary against `server`: whether it succeeded, its output and its remarks.
fn run(site: &Site, server: &Server, arguments: &[&str]) -> (bool, String, String) {
    let mut command = site.command();
    command.args(arguments).env("ARRWDB_SERVER", &server.url);
    // The embedder that the server asks runs on the other threads of this test's runtime.
    let output = tokio::task::block_in_place(|| command.output().expect("the command runs"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    fs::write(path, content).expect("a file");
}

/// A folder with one file of each kind, and things to leave out.
fn corpus(site: &Site) -> String {
    let docs = site.path("docs");
    write(
        &docs.join("guide.md"),
        "---\ntags: [x]\n---\n# The Guide\n\nWhales *swim* in the sea.\n",
    );
    write(&docs.join("notes.txt"), "Parrots fly over the forest.\n");
    write(&docs.join("page.html"), "<title>A page</title><p>Foxes <b>hunt</b> at night.</p>");
    write(&docs.join("manual.rst"), "Manual\n======\n\nBears sleep in winter.\n");
    write(&docs.join("latin.txt"), b"Caf\xe9 au lait.\n");
    write(
        &docs.join("rows.csv"),
        "id,title,text,year\n1,Row one,Ants carry leaves.,1999\n2,Row two,Bees make honey.,2001\n",
    );
    write(
        &docs.join("lines.ndjson"),
        "{\"title\":\"L1\",\"text\":\"Owls see in the dark.\"}\nbroken\n",
    );
    write(&docs.join("picture.png"), b"\x89PNG\0");
    write(&docs.join("binary.txt"), b"\0\0\0");
    write(&docs.join(".hidden.md"), "# Hidden");
    write(&docs.join("skip/out.md"), "# Ignored");
    write(&docs.join(".gitignore"), "skip/\n");
    docs.to_string_lossy().into_owned()
}

async fn documents(server: &Server) -> Vec<Value> {
    let libraries = server.get("/v1/libraries").await.expect(200);
    let id = libraries[0]["id"].as_str().expect("id").to_owned();
    let listed = server.get(&format!("/v1/libraries/{id}/documents?page_size=1000")).await;
    listed.expect(200)["documents"].as_array().expect("documents").clone()
}

fn titles(documents: &[Value]) -> Vec<String> {
    let title = |d: &Value| d["metadata"]["title"].as_str().expect("title").to_owned();
    let mut titles: Vec<String> = documents.iter().map(title).collect();
    titles.sort();
    titles
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u2_importing_twice_changes_nothing() {
    let site = Site::new().await;
    let server = site.start().await;
    let docs = corpus(&site);
    let (ok, _, said) = run(&site, &server, &["import", &docs]);
    assert!(!ok, "one line is broken: {said}");
    assert!(said.contains("lines.ndjson:2: not JSON"), "{said}");
    for remark in ["1 file of an unknown type", "1 file not text", "1 file not UTF-8"] {
        assert!(said.contains(remark), "{remark} in {said}");
    }
    write(
        &Path::new(&docs).join("lines.ndjson"),
        "{\"title\":\"L1\",\"text\":\"Owls see in the dark.\"}\n",
    );
    let first = documents(&server).await;
    let expected = ["A page", "L1", "Manual", "Row one", "Row two", "The Guide", "latin", "notes"];
    assert_eq!(titles(&first), expected);
    let row = first.iter().find(|d| d["metadata"]["title"] == "Row two").expect("a row");
    assert_eq!(row["metadata"]["custom"]["year"], 2001);
    let latin = first.iter().find(|d| d["metadata"]["title"] == "latin").expect("a file");
    assert_eq!(latin["chunks"][0]["text"], "Caf\u{e9} au lait.");

    let embedded = site.provider.as_ref().expect("provider").texts();
    let (ok, _, said) = run(&site, &server, &["import", &docs]);
    assert!(ok, "{said}");
    assert!(
        said.contains("Imported 0 documents") && said.contains("8 documents unchanged"),
        "{said}"
    );
    assert_eq!(documents(&server).await, first);
    assert_eq!(site.provider.as_ref().expect("provider").texts(), embedded);

    write(&Path::new(&docs).join("notes.txt"), "Parrots talk.\n");
    fs::remove_file(Path::new(&docs).join("page.html")).expect("removed");
    let (ok, _, said) = run(&site, &server, &["import", "--prune", &docs]);
    assert!(
        ok && said.contains("Imported 1 document ") && said.contains("1 document gone"),
        "{said}"
    );
    let now = documents(&server).await;
    assert_eq!(titles(&now), ["L1", "Manual", "Row one", "Row two", "The Guide", "latin", "notes"]);
    let ids = |documents: &[Value], title: &str| {
        documents.iter().find(|d| d["metadata"]["title"] == title).expect("there")["id"].clone()
    };
    assert_eq!(ids(&first, "notes"), ids(&now, "notes"), "replaced, not added");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_imported_is_found_and_shown() {
    let site = Site::new().await;
    let server = site.start().await;
    let docs = corpus(&site);
    let import = |language| ["import", &docs, "--library", "zoo", "--language", language];
    let (ok, _, said) = run(&site, &server, &import("xx"));
    assert!(!ok && said.contains("must be one of ar, da, de"), "{said}");
    assert_eq!(server.get("/v1/libraries").await.expect(200), json!([]));
    let (ok, _, said) = run(&site, &server, &import("fr"));
    assert!(!ok, "{said}");
    let made = server.get("/v1/libraries").await.expect(200);
    assert_eq!(made[0]["metadata"]["language"], "fr");
    let (ok, shown, said) = run(&site, &server, &["search", "whales", "swim", "-k", "2"]);
    assert!(ok, "{said}");
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].trim_start().starts_with("0.") && lines[0].ends_with("The Guide"), "{shown}");
    assert!(shown.contains("Whales swim in the sea."), "{shown}");
    assert!(shown.contains("2 passages of \"zoo\""), "{shown}");
    assert!(!shown.contains('\u{1b}'), "no colour in a pipe");
    let (ok, shown, _) = run(&site, &server, &["search", "honey", "--json", "--library", "zoo"]);
    let answer: Value = serde_json::from_str(&shown).expect("JSON");
    assert!(ok && answer["results"][0]["document_title"] == "Row two", "{answer}");
    let (ok, shown, _) = run(&site, &server, &["search", "xyzzy", "--threshold", "0.0"]);
    assert!(ok && shown.contains("Nothing found."), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_imported_as_the_same_documents() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let path = format!("/v1/libraries/{library}/documents");
    for n in 0..30 {
        let body = json!({ "title": format!("d{n}"), "texts": [format!("text {n}"), "more"], "tags": ["t"], "metadata": { "n": n } });
        server.post(&path, &body).await.expect(201);
    }
    let out = site.path("out.ndjson");
    let file = out.to_string_lossy().into_owned();
    let (ok, shown, said) = run(&site, &server, &["export", "--out", &file]);
    assert!(ok && shown.is_empty() && said.contains("Exported 30 documents"), "{said}");
    let exported = fs::read_to_string(&out).expect("the file");
    assert_eq!(exported.lines().count(), 30);
    let (_, shown, _) = run(&site, &server, &["export", "--library", "test"]);
    assert_eq!(shown, exported, "the same on standard output");
    let (_, slim, _) = run(&site, &server, &["export", "--no-embeddings", "--library", "test"]);
    assert!(slim.lines().count() == 30 && !slim.contains("embedding"), "vectors left out");
    let (ok, _, said) = run(&site, &server, &["import", &file, "--library", "copy"]);
    assert!(ok, "{said}");
    let (_, copy, _) = run(&site, &server, &["export", "--library", "copy"]);
    let sorted = |text: &str| {
        let mut lines: Vec<Value> = text
            .lines()
            .map(|line| {
                let mut line: Value = serde_json::from_str(line).expect("JSON");
                let custom = line["metadata"].as_object_mut().expect("metadata");
                custom.retain(|key, _| !key.starts_with("import_"));
                line
            })
            .collect();
        lines.sort_by_key(|line| line["id"].as_str().expect("id").to_owned());
        lines
    };
    assert_eq!(sorted(&copy), sorted(&exported), "ids, times, chunks and vectors");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_file_becomes_several_documents() {
    let site = Site::new().await;
    let server = site.start().await;
    let paragraphs: Vec<String> =
        (0..6000).map(|n| format!("Sentence number {n} of a long text.\n\n")).collect();
    write(&site.path("long.txt"), paragraphs.concat());
    let file = site.path("long.txt").to_string_lossy().into_owned();
    let (ok, _, said) = run(&site, &server, &["import", &file]);
    assert!(ok, "{said}");
    let stored = documents(&server).await;
    assert_eq!(titles(&stored), ["long (part 1)", "long (part 2)", "long (part 3)"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_told_with_what_to_do() {
    let site = Site::new().await;
    let server = site.start().await;
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let (ok, _, said) = run(&site, &server, &["search", "x", "--server", &nobody]);
    assert!(!ok && said.contains("nothing answers at") && said.contains("arrwdb serve"), "{said}");
    let (ok, _, said) = run(&site, &server, &["search", "x"]);
    assert!(!ok && said.contains("arrwdb import"), "{said}");
    server.library().await;
    let (ok, _, said) = run(&site, &server, &["export", "--library", "nope"]);
    assert!(!ok && said.contains("no library \"nope\"") && said.contains("\"test\""), "{said}");
    let (ok, _, said) = run(&site, &server, &["import", "/nowhere/at/all"]);
    assert!(!ok && said.contains("/nowhere/at/all"), "{said}");
    let (ok, _, said) = run(&site, &server, &["search", "x", "--server", "localhost"]);
    assert!(!ok && said.contains("not a server's URL"), "{said}");
    server.library().await;
    let (ok, _, said) = run(&site, &server, &["export", "--library", "test"]);
    assert!(!ok && said.contains("2 libraries are named"), "{said}");
    let (ok, _, said) = run(&site, &server, &["search", "x"]);
    assert!(!ok && said.contains("--library"), "{said}");
    let (ok, shown, _) = run(&site, &server, &["--help"]);
    assert!(ok);
    for command in ["serve", "demo", "import", "search", "export", "model"] {
        assert!(shown.contains(command), "{command} in {shown}");
    }
}
