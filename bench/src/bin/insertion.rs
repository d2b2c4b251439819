//! Searching a large library while it grows, one durable write after the other.
//!
//! `cargo xtask bench insertion -- BASE.npy [ROWS] [INSERTED] [LIBRARY]`
//!
//! The first ROWS (200,000) rows of the array are a library with the index that the JSON object
//! LIBRARY asks for (`{"index_type":"hnsw"}`), the next INSERTED (100,000) are added one request
//! after the other, each answered after its sync, while another client searches without pause.
//! Both share the machine with the server. Every hundredth insertion is searched for at once. In
//! the end everything is merged into one, which is what one bulk build costs.
#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use arrwdb_bench::Outcome;
use arrwdb_bench::figures::{at, load};
use arrwdb_bench::npy::Npy;
use arrwdb_bench::server::{Connection, Server, post, program, thread_cpu_seconds};
use serde_json::{Value, json};

/// How long a library that nobody else uses is searched.
const QUIET: Duration = Duration::from_secs(10);
/// Lines sent at a time.
const LINES: usize = 1000;
/// One in so many insertions is searched for.
const SOUGHT: usize = 100;
/// How often it is asked whether the builder has come to rest, and for how long it has to.
const LOOK: Duration = Duration::from_millis(500);
const REST: Duration = Duration::from_secs(5);

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let base = arguments.first().ok_or("which array of base vectors?")?;
    let base = Npy::open(Path::new(base), "<f4")?;
    let number = |place: usize, usual: usize| {
        arguments.get(place).map_or(Ok(usual), |text| text.parse::<usize>())
    };
    let (rows, inserted) = (number(1, 200_000)?, number(2, 100_000)?);
    let library = arguments.get(3).map_or("{\"index_type\":\"hnsw\"}", String::as_str);
    let mut library: Value = serde_json::from_str(library)?;
    let [found, dims] = base.shape;
    if found < rows + inserted {
        return Err(format!("the array has {found} rows, not {}", rows + inserted).into());
    }
    library["name"] = json!("bench");
    library["embedding_dimension"] = json!(dims);
    let vectors: Vec<&[f32]> = base.values::<f32>().chunks_exact(dims).collect();
    let settings =
        [("EMBEDDING_PROVIDER", "cohere"), ("COHERE_API_KEY", "unused"), ("LOG_LEVEL", "WARNING")];
    let server = Server::start(&program()?, None, &settings)?;
    let created =
        server.request("POST", "/v1/libraries", library.to_string().as_bytes())?.json()?;
    let id = created["id"].as_str().ok_or("no id")?.to_owned();
    let bench = Bench { server: &server, id };
    bench.build(&vectors[..rows])?;
    bench.grow(&vectors[..rows], &vectors[rows..rows + inserted])
}

fn print_times(what: &str, milliseconds: &[f64]) {
    println!(
        "{what}: {} in all, p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, most {:.1} ms",
        milliseconds.len(),
        at(milliseconds, 0.5),
        at(milliseconds, 0.99),
        at(milliseconds, 0.999),
        at(milliseconds, 1.0)
    );
}

struct Bench<'a> {
    server: &'a Server,
    id: String,
}

impl Bench<'_> {
    /// The library before anything is inserted.
    fn build(&self, rows: &[&[f32]]) -> Outcome<()> {
        self.fill(rows)?;
        let began = Instant::now();
        self.work("rebuild")?;
        let (rows, seconds) = (rows.len(), began.elapsed().as_secs_f64());
        println!("{rows} rows: built in {seconds:.1} s, {:.1} s of processors", self.built()?);
        self.rest()
    }

    /// Inserts and searches at the same time, and says what that took.
    fn grow(&self, rows: &[&[f32]], inserted: &[&[f32]]) -> Outcome<()> {
        let until = Instant::now() + QUIET;
        let quiet = self.search(rows, &|| Instant::now() > until)?;
        print_times("quiet", &quiet);
        let before = self.built()?;
        let done = AtomicBool::new(false);
        let (searches, written) = std::thread::scope(|scope| {
            let searching = scope.spawn(|| {
                let done = || done.load(Ordering::SeqCst);
                self.search(rows, &done).map_err(|error| error.to_string())
            });
            let written = self.insert(inserted);
            done.store(true, Ordering::SeqCst);
            (searching.join(), written)
        });
        let searches = searches.map_err(|_panic| "searching failed")??;
        let (seconds, writes) = written?;
        let inserted = inserted.len();
        let rate = inserted as f64 / seconds;
        println!("{inserted} insertions in {seconds:.1} s, {rate:.0} a second; load {}", load());
        print_times("insertion", &writes);
        print_times("search", &searches);
        println!("search p99 / quiet median: {:.1}", at(&searches, 0.99) / at(&quiet, 0.5));
        self.rest()?;
        let during = self.built()? - before;
        let before = self.built()?;
        self.work("optimize")?;
        let bulk = self.built()? - before;
        println!(
            "building while it grew: {during:.1} s of processors; one build of all {} rows: \
             {bulk:.1} s; ratio {:.2}",
            rows.len() + inserted,
            during / bulk
        );
        Ok(())
    }

    /// Asks for long work on the index, and waits for it.
    fn work(&self, what: &str) -> Outcome<()> {
        let path = format!("/v1/libraries/{}/index/{what}", self.id);
        self.server.request("POST", &path, b"{}")?.json()?;
        Ok(())
    }

    fn fill(&self, vectors: &[&[f32]]) -> Outcome<()> {
        let mut lines = self.server.lines(&self.id)?;
        for (part, vectors) in vectors.chunks(LINES).enumerate() {
            let mut text = String::new();
            for (place, vector) in vectors.iter().enumerate() {
                text.push_str(&document(part * LINES + place, vector).to_string());
                text.push('\n');
            }
            lines.send(text.as_bytes())?;
        }
        let answer = lines.end()?.json()?;
        if answer["failed"] == 0 {
            Ok(())
        } else {
            Err(format!("not all written: {answer}").into())
        }
    }

    /// Processor time of the builder so far.
    fn built(&self) -> Outcome<f64> {
        thread_cpu_seconds(self.server.pid(), "arrwdb-build")
    }

    /// Waits until the builder has had nothing to do for a while.
    fn rest(&self) -> Outcome<()> {
        let (mut last, mut since) = (self.built()?, Instant::now());
        while since.elapsed() < REST {
            sleep(LOOK);
            let now = self.built()?;
            if now > last {
                (last, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    fn post(&self, path: &str, body: &Value) -> Vec<u8> {
        let path = format!("/v1/libraries/{}/{path}", self.id);
        post(self.server.address(), &path, &body.to_string())
    }

    fn searching(&self, vector: &[f32]) -> Vec<u8> {
        self.post("search/embedding", &json!({"embedding": vector, "k": 10}))
    }

    /// Milliseconds of searches for one row after the other, until it is done.
    fn search(&self, rows: &[&[f32]], done: &dyn Fn() -> bool) -> Outcome<Vec<f64>> {
        let mut connection = Connection::open(self.server.address())?;
        let mut times = Vec::new();
        // A stride that meets all rows, far from each other.
        for row in (0..).map(|n: usize| n * 7919 % rows.len()) {
            if done() {
                break;
            }
            let request = self.searching(rows[row]);
            let began = Instant::now();
            let answer = connection.send(&request)?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
            if answer.status != 200 {
                return Err(String::from_utf8_lossy(&answer.body).into_owned().into());
            }
        }
        Ok(times)
    }

    /// Adds rows one by one; the seconds in all, and the milliseconds of each.
    fn insert(&self, rows: &[&[f32]]) -> Outcome<(f64, Vec<f64>)> {
        let mut connection = Connection::open(self.server.address())?;
        let mut times = Vec::with_capacity(rows.len());
        let all = Instant::now();
        for (place, vector) in rows.iter().enumerate() {
            let path = "documents/with-embeddings?include_embeddings=false";
            let request = self.post(path, &document(place, vector));
            let began = Instant::now();
            let answer = connection.send(&request)?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
            let written = answer.json()?;
            if place % SOUGHT == 0 {
                let found = connection.send(&self.searching(vector))?.json()?;
                let id = &written["id"];
                let results = found["results"].as_array().ok_or("no results")?;
                if !results.iter().any(|result| result["document_id"] == *id) {
                    return Err(format!("{id} was written and is not found: {found}").into());
                }
            }
        }
        Ok((all.elapsed().as_secs_f64(), times))
    }
}

fn document(row: usize, vector: &[f32]) -> Value {
    json!({"title": "t", "chunks": [{"text": format!("row {row}"), "embedding": vector}]})
}
