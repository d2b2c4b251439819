//! Filtered search over HTTP beside unfiltered search of the same library.
//!
//! `cargo xtask bench filtered BASE.npy QUERIES.npy [ROWS] [LIBRARY]`
//!
//! The first ROWS (all) rows of the array are a library with the index that the JSON object LIBRARY
//! asks for (`{"index_type":"hnsw"}`). Each document has a number, a tag and a date of its metadata
//! by which a half, a tenth, a hundredth or a thousandth of all passes. Each query is asked once
//! without a filter and once with each, one after the other, on one connection; rounds are repeated,
//! and what is compared is of one run. Recall is against the same search with `exact`.
#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use arrwdb_bench::Outcome;
use arrwdb_bench::figures::{at, load};
use arrwdb_bench::npy::Npy;
use arrwdb_bench::server::{Connection, Server, post, program};
use serde_json::{Value, json};

/// Lines sent at a time.
const LINES: usize = 1000;
/// Queries that are asked, and how often each.
const QUERIES: usize = 200;
const ROUNDS: usize = 5;
const K: usize = 10;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let base = arguments.first().ok_or("which array of base vectors?")?;
    let queries = arguments.get(1).ok_or("which array of queries?")?;
    let (base, queries) =
        (Npy::open(Path::new(base), "<f4")?, Npy::open(Path::new(queries), "<f4")?);
    let [found, dims] = base.shape;
    let rows = arguments.get(2).map_or(Ok(found), |text| text.parse::<usize>())?.min(found);
    let library = arguments.get(3).map_or("{\"index_type\":\"hnsw\"}", String::as_str);
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
    let base: Vec<&[f32]> = base.values::<f32>().chunks_exact(dims).take(rows).collect();
    let queries: Vec<&[f32]> = queries.values::<f32>().chunks_exact(dims).take(QUERIES).collect();
    bench.fill(&base)?;
    bench.first_filter()?;
    bench.compare(&queries)
}

/// A number from 0 to 999 that has nothing to do with the vector.
fn spread(row: usize) -> u64 {
    (row as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32 & 0xffff_ffff
}

fn document(row: usize, vector: &[f32]) -> Value {
    let number = spread(row) % 1000;
    json!({
        "title": format!("document {row}"),
        "tags": [if number < 500 { "half" } else { "other" }, "all"],
        "metadata": {
            "number": number,
            "of": {"tenth": number / 100},
            "day": format!("2026-{:02}-{:02}", number % 12 + 1, number % 28 + 1),
        },
        "chunks": [{"text": format!("passage {row}"), "embedding": vector}],
    })
}

/// Name and filter, the part that passes falling.
fn filters() -> Vec<(&'static str, Value)> {
    vec![
        ("none", Value::Null),
        ("all but nothing", json!({"tags": "all"})),
        ("a half by a tag", json!({"tags": "half"})),
        ("a tenth by a path", json!({"of.tenth": 3})),
        ("a hundredth by a range", json!({"number": {"$gte": 990}})),
        (
            "a thousandth by three",
            json!({"number": 7, "tags": "half", "day": {"$lt": "2027-01-01"}}),
        ),
    ]
}

struct Bench<'a> {
    server: &'a Server,
    id: String,
}

impl Bench<'_> {
    fn fill(&self, rows: &[&[f32]]) -> Outcome<()> {
        let began = Instant::now();
        let mut lines = self.server.lines(&self.id)?;
        for (part, vectors) in rows.chunks(LINES).enumerate() {
            let mut text = String::new();
            for (place, vector) in vectors.iter().enumerate() {
                text.push_str(&document(part * LINES + place, vector).to_string());
                text.push('\n');
            }
            lines.send(text.as_bytes())?;
        }
        let answer = lines.end()?.json()?;
        if answer["failed"] != 0 {
            return Err(format!("not all written: {answer}").into());
        }
        let path = format!("/v1/libraries/{}/index/rebuild", self.id);
        self.server.request("POST", &path, b"{}")?.json()?;
        println!("{} rows written and built in {:.1} s", rows.len(), began.elapsed().as_secs_f64());
        Ok(())
    }

    /// What the first filter costs: the columns are made.
    fn first_filter(&self) -> Outcome<()> {
        let path = format!("/v1/libraries/{}/documents/count", self.id);
        let body = json!({"filter": {"tags": "half"}}).to_string();
        for what in ["first count", "second count"] {
            let began = Instant::now();
            let answer = self.server.request("POST", &path, body.as_bytes())?.json()?;
            let milliseconds = began.elapsed().as_secs_f64() * 1e3;
            println!("{what}: {milliseconds:.1} ms, {} pass", answer["chunks"]);
        }
        Ok(())
    }

    fn request(&self, vector: &[f32], filter: &Value, exact: bool) -> Vec<u8> {
        let path = format!("/v1/libraries/{}/search/embedding", self.id);
        let mut body = json!({"embedding": vector, "k": K, "explain": true});
        if !filter.is_null() {
            body["filter"] = filter.clone();
        }
        if exact {
            body["exact"] = json!(true);
        }
        post(self.server.address(), &path, &body.to_string())
    }

    fn compare(&self, queries: &[&[f32]]) -> Outcome<()> {
        let filters = filters();
        let mut connection = Connection::open(self.server.address())?;
        let mut figures: Vec<Figures> = filters.iter().map(|_filter| Figures::default()).collect();
        for round in 0..=ROUNDS {
            for query in queries {
                for ((_name, filter), figures) in filters.iter().zip(&mut figures) {
                    let began = Instant::now();
                    let answer = connection.send(&self.request(query, filter, false))?;
                    let taken = began.elapsed().as_secs_f64() * 1e3;
                    let answer = answer.json()?;
                    // The first round warms up, and is compared with what is exact.
                    if round == 0 {
                        let exact = connection.send(&self.request(query, filter, true))?.json()?;
                        figures.compare(&answer, &exact);
                    } else {
                        figures.milliseconds.push(taken);
                        let filter_ms = &answer["explain"]["filter"]["filter_ms"];
                        figures.filter.push(filter_ms.as_f64().unwrap_or(0.0));
                    }
                }
            }
        }
        println!("{} queries, {ROUNDS} times each; load {}", queries.len(), load());
        println!(
            "| filter | passages | recall@{K} | median ms | p99 ms | of it filter ms | times unfiltered |"
        );
        println!("|---|--:|--:|--:|--:|--:|--:|");
        let unfiltered = figures.first().map_or(f64::NAN, |it| at(&it.milliseconds, 0.5));
        for ((name, _filter), figures) in filters.iter().zip(&figures) {
            let median = at(&figures.milliseconds, 0.5);
            println!(
                "| {name} | {} | {:.3} | {median:.2} | {:.2} | {:.2} | {:.2} |",
                figures.passages,
                figures.found as f64 / (figures.wanted as f64).max(1.0),
                at(&figures.milliseconds, 0.99),
                at(&figures.filter, 0.5),
                median / unfiltered
            );
        }
        Ok(())
    }
}

#[derive(Default)]
struct Figures {
    milliseconds: Vec<f64>,
    filter: Vec<f64>,
    found: usize,
    wanted: usize,
    passages: u64,
}

impl Figures {
    fn compare(&mut self, answer: &Value, exact: &Value) {
        let ids = |answer: &Value| -> BTreeSet<String> {
            let hits = answer["results"].as_array().into_iter().flatten();
            hits.filter_map(|hit| hit["chunk"]["id"].as_str().map(str::to_owned)).collect()
        };
        let (found, wanted) = (ids(answer), ids(exact));
        self.found += found.intersection(&wanted).count();
        self.wanted += wanted.len();
        self.passages = answer["explain"]["filter"]["passages"].as_u64().unwrap_or(0);
    }
}
