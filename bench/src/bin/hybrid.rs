//! Hybrid search over HTTP beside the two searches that it is made of.
//!
//! `cargo xtask bench hybrid PASSAGES.jsonl PASSAGES.npy QUERIES.jsonl QUERIES.npy [WORDS] [LIBRARY]`
//!
//! Each line of both files is an object with `text`, and `title` where there is one; the arrays have
//! the vector of each line. Passages become documents of one passage in a library as the JSON object
//! LIBRARY asks for it (`{"index_type":"hnsw"}`). A query is the first WORDS (10) words of its text,
//! and its vector. Each is asked by its vector, by its words and by both, one after the other, on one
//! connection; rounds are repeated, and what is compared is of one run.
#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Instant;

use arrwdb_bench::Outcome;
use arrwdb_bench::figures::{at, load, median};
use arrwdb_bench::npy::Npy;
use arrwdb_bench::server::{Connection, Server, post, program};
use serde_json::{Value, json};

/// Lines sent at a time.
const LINES: usize = 1000;
/// Queries that are asked, and how often each.
const QUERIES: usize = 200;
const ROUNDS: usize = 5;
const K: usize = 10;
/// What is compared, in the order in which it is asked.
const SEARCHES: [&str; 3] = ["vector", "keyword", "hybrid"];

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [passages, base, queries, vectors, options @ ..] = arguments.as_slice() else {
        return Err("which passages, their vectors, queries and their vectors?".into());
    };
    let words = options.first().map_or(Ok(10), |text| text.parse::<usize>())?;
    let library = options.get(1).map_or("{\"index_type\":\"hnsw\"}", String::as_str);
    let (base, vectors) =
        (Npy::open(Path::new(base), "<f4")?, Npy::open(Path::new(vectors), "<f4")?);
    let [_rows, dims] = base.shape;
    let mut library: Value = serde_json::from_str(library)?;
    library["name"] = json!("bench");
    library["embedding_dimension"] = json!(dims);
    let settings =
        [("EMBEDDING_PROVIDER", "cohere"), ("COHERE_API_KEY", "unused"), ("LOG_LEVEL", "WARNING")];
    let server = Server::start(&program()?, None, &settings)?;
    let created =
        server.request("POST", "/v1/libraries", library.to_string().as_bytes())?.json()?;
    let id = created["id"].as_str().ok_or("no id")?.to_owned();
    let bench = Bench { server: &server, id };
    let base: Vec<&[f32]> = base.values::<f32>().chunks_exact(dims).collect();
    bench.fill(&read(passages)?, &base)?;
    let vectors = vectors.values::<f32>().chunks_exact(dims);
    let queries: Vec<Query<'_>> = read(queries)?
        .iter()
        .zip(vectors)
        .take(QUERIES)
        .map(|(line, vector)| Query { words: first_words(text_of(line), words), vector })
        .collect();
    bench.compare(&queries)
}

struct Query<'a> {
    words: String,
    vector: &'a [f32],
}

struct Bench<'a> {
    server: &'a Server,
    id: String,
}

impl Bench<'_> {
    fn fill(&self, passages: &[Value], vectors: &[&[f32]]) -> Outcome<()> {
        let began = Instant::now();
        let mut lines = self.server.lines(&self.id)?;
        let documents: Vec<_> = passages.iter().zip(vectors).collect();
        for part in documents.chunks(LINES) {
            let mut text = String::new();
            for (passage, vector) in part {
                let title = passage["title"].as_str().filter(|title| !title.trim().is_empty());
                let document = json!({
                    "title": title.unwrap_or("untitled"),
                    "chunks": [{"text": text_of(passage), "embedding": vector}],
                });
                text.push_str(&document.to_string());
                text.push('\n');
            }
            lines.send(text.as_bytes())?;
        }
        let answer = lines.end()?.json()?;
        if answer["failed"] != 0 {
            return Err(format!("not all written: {answer:.500}").into());
        }
        let path = format!("/v1/libraries/{}/index/rebuild", self.id);
        self.server.request("POST", &path, b"{}")?.json()?;
        let seconds = began.elapsed().as_secs_f64();
        println!("{} passages written and built in {seconds:.1} s", documents.len());
        Ok(())
    }

    fn request(&self, query: &Query<'_>, search: &str) -> Vec<u8> {
        let body = match search {
            "vector" => json!({"embedding": query.vector, "k": K}),
            "keyword" => json!({"query": query.words, "k": K}),
            _hybrid => {
                json!({"embedding": query.vector, "query": query.words, "mode": "hybrid", "k": K})
            }
        };
        let path = if search == "keyword" { "search/keyword" } else { "search/embedding" };
        let path = format!("/v1/libraries/{}/{path}", self.id);
        post(self.server.address(), &path, &body.to_string())
    }

    fn compare(&self, queries: &[Query<'_>]) -> Outcome<()> {
        let mut connection = Connection::open(self.server.address())?;
        let mut times: [Vec<f64>; SEARCHES.len()] = Default::default();
        let mut ratios = Vec::new();
        for round in 0..=ROUNDS {
            for query in queries {
                let mut taken = [0.0; SEARCHES.len()];
                for (search, taken) in SEARCHES.iter().zip(&mut taken) {
                    let request = self.request(query, search);
                    let began = Instant::now();
                    let answer = connection.send(&request)?;
                    *taken = began.elapsed().as_secs_f64() * 1e3;
                    answer.json()?;
                }
                // The first round makes the keyword index, and warms up.
                if round > 0 {
                    let [vector, keyword, hybrid] = taken;
                    ratios.push(hybrid / (vector + keyword));
                    for (times, taken) in times.iter_mut().zip(taken) {
                        times.push(taken);
                    }
                }
            }
        }
        println!("{} queries, {ROUNDS} times each; load {}", queries.len(), load());
        println!("| search | median ms | p99 ms |\n|---|--:|--:|");
        for (search, times) in SEARCHES.iter().zip(&times) {
            println!("| {search} | {:.2} | {:.2} |", median(times), at(times, 0.99));
        }
        let [vector, keyword, hybrid] = times.each_ref().map(|times| median(times));
        println!(
            "hybrid is {:.2} times the sum of its parts by medians; the median of each query's ratio is {:.2}",
            hybrid / (vector + keyword),
            median(&ratios)
        );
        Ok(())
    }
}

fn text_of(line: &Value) -> &str {
    line["text"].as_str().unwrap_or_default()
}

fn first_words(text: &str, words: usize) -> String {
    text.split_whitespace().take(words).collect::<Vec<_>>().join(" ")
}

fn read(path: &str) -> Outcome<Vec<Value>> {
    let lines = BufReader::new(File::open(path)?).lines();
    lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}
