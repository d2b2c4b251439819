//! Keyword search of one segment, in process and on one thread: how long making the index takes, how
//! large it is, how long queries take.
//!
//! `cargo xtask bench keyword PASSAGES.jsonl QUERIES.jsonl`
//!
//! Each line of both is an object with `text`, and `title` where there is one. A query is its text
//! as words, cut to the first WORDS (10) of them.
#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::time::Instant;

use arrwdb_bench::Outcome;
use arrwdb_bench::figures::at;
use arrwdb_index::AllRows;
use arrwdb_index::analysis::Language;
use arrwdb_index::keyword::{
    BestRows, Bm25, Collection, KeywordQuery, Operator, Postings, PostingsBuilder, Scored, Visited,
    Wanted, What, search,
};
use serde_json::{Value, json};

const K: usize = 10;
const ROUNDS: usize = 5;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let passages = read(arguments.first().ok_or("which passages?")?)?;
    let queries = read(arguments.get(1).ok_or("which queries?")?)?;
    let words = arguments.get(2).map_or(Ok(10), |text| text.parse::<usize>())?;
    let started = Instant::now();
    let mut builder = PostingsBuilder::new(Language::English);
    for (title, text) in &passages {
        builder.push(&[title, text]);
    }
    let postings = builder.finish();
    let made = started.elapsed();
    let text: usize = passages.iter().map(|(title, text)| title.len() + text.len()).sum();
    println!(
        "{} passages of {text} bytes: index of {} bytes made in {:.0} ms",
        passages.len(),
        postings.as_bytes().len(),
        made.as_secs_f64() * 1e3,
    );
    let queries: Vec<String> = queries
        .iter()
        .map(|(_title, text)| text.split_whitespace().take(words).collect::<Vec<_>>().join(" "))
        .collect();
    let mut took = Vec::new();
    let mut visited = Visited::default();
    for _round in 0..ROUNDS {
        for query in &queries {
            let started = Instant::now();
            visited.add(ask(&postings, query)?);
            took.push(started.elapsed().as_secs_f64() * 1e6);
        }
    }
    took.sort_by(f64::total_cmp);
    let count = took.len() as u64;
    let figures = json!({
        "passages": passages.len(),
        "index_bytes": postings.as_bytes().len(),
        "build_ms": made.as_secs_f64() * 1e3,
        "queries": queries.len(),
        "median_us": at(&took, 0.5),
        "p99_us": at(&took, 0.99),
        "postings_per_query": visited.postings / count,
        "rows_per_query": visited.rows / count,
    });
    println!("{figures:#}");
    Ok(())
}

fn ask(postings: &Postings, query: &str) -> Outcome<Visited> {
    let query = KeywordQuery::read(query, Operator::Or, Language::English)?;
    let collection = Collection { rows: u64::from(postings.rows()), tokens: postings.tokens() };
    let mut scored = Vec::new();
    for term in &query.terms {
        if let What::Term(text) = &term.what
            && let Some(list) = postings.list(text)
        {
            let weight = collection.weight(u64::from(list.rows())) * term.count as f32;
            scored.push(Scored { list, weight });
        }
    }
    let mut best = BestRows::new(K);
    let bm25 = Bm25::default();
    let wanted = Wanted { terms: &scored, bm25, collection, allowed: &AllRows };
    Ok(search(postings, wanted, &mut best, |row| row))
}

/// The title and the text of each line.
fn read(path: &str) -> Outcome<Vec<(String, String)>> {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let lines = BufReader::new(File::open(path)?).lines();
    lines
        .map(|line| {
            let value: Value = serde_json::from_str(&line?)?;
            Ok((text(&value, "title"), text(&value, "text")))
        })
        .collect()
}
