//! One index in process: how long it takes to build, how much memory it takes, and how fast it
//! answers at which recall.
//!
//! `cargo run --release -p arrwdb-bench --bin indexes -- --base B.npy --queries Q.npy
//! --truth T.npy --metric cosine|dot|l2 --index '{"index_type":"hnsw"}' --json OUT.json`
//!
//! `--k 10`, `--threads 1,2`, `--rounds 3`; `--sweep '[{"ef_search":20}]'` measures these settings,
//! `--targets 0.90,0.95` the least `ef_search` that reaches each recall, `--filters 0.95` recall and
//! speed at the effort that is chosen for each, under filters of several kinds; `--save FILE` and
//! `--load FILE` keep what was built. Base vectors and queries are `NumPy` files of f32, the truth one
//! of i32 with the nearest rows of each query.
//!
//! For an exact index, `--verify-exact 10000` compares so many results with those of a full scan, bit
//! for bit, and fails if one differs; `--faiss PYTHON` (an interpreter with faiss-cpu and numpy) takes
//! single searches on one thread in turns with a full scan and faiss' flat index, `--turns 200`.
//! `bench/peers/compare.py` runs this beside other engines.
#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrwdb_bench::Outcome;
use arrwdb_bench::exact;
use arrwdb_bench::figures::{at, load, median};
use arrwdb_bench::filters::{self, Asked};
use arrwdb_bench::npy::Npy;
use arrwdb_index::{
    AllRows, Executor, IndexSpec, Metric, Quantization, Request, RowBlock, SectionReader,
    SectionWriter, SegmentIndex, Structure, TopK, Tuning, inverse_norm, normalized,
};
use rayon::prelude::*;
use serde_json::{Value, json};

/// How long one measurement goes on at least.
const MEASURE: Duration = Duration::from_millis(500);
/// Searches whose latency is taken.
const LATENCIES: usize = 2000;
const EF_MAX: u32 = 4000;

fn main() -> Outcome<()> {
    let options = Options::read()?;
    let data = Data::open(&options)?;
    let (index, build) = built(&options, &data)?;
    println!(
        "{} rows of {}, {:?}, {}: {:.1} MB resident, load {}",
        data.rows(),
        data.dims(),
        data.metric,
        index.spec(),
        index.bytes() as f64 / 1e6,
        load()
    );
    let mut settings = options.sweep.clone();
    for target in &options.targets {
        settings.extend(least_for(&options, &data, &index, *target));
    }
    let mut points = Vec::new();
    for setting in settings {
        let point = measure(&options, &data, &index, &setting);
        println!("{point}");
        points.push(point);
    }
    let mut filtered = Vec::new();
    if !options.filters.is_empty() {
        let rows = data.block();
        let asked = Asked { index: &index, rows: &rows, queries: &data.queries, k: options.k };
        let threads = options.threads.iter().copied().max().unwrap_or(1);
        let pool = Pool(rayon::ThreadPoolBuilder::new().num_threads(threads).build()?);
        filtered = filters::measure(asked, &options.filters, &pool)?;
        for row in &filtered {
            println!("{row}");
        }
    }
    let exact = compared(&options, &data, &index)?;
    let report = json!({
        "index": options.index,
        "rows": data.rows(),
        "dimension": data.dims(),
        "metric": data.metric.name(),
        "build": build,
        "bytes": {
            "resident": index.bytes() + data.inverse_norms.len() * 4,
            "mapped": data.rows() * data.dims() * 4,
            "file": options.save.as_ref().or(options.load.as_ref())
                .and_then(|path| std::fs::metadata(path).ok()).map(|file| file.len()),
        },
        "points": points,
        "filters": filtered,
        "exact": exact,
    });
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(())
}

/// An exact index beside a full scan, and beside faiss, where that is asked for.
fn compared(options: &Options, data: &Data, index: &SegmentIndex) -> Outcome<Value> {
    let rows = data.block();
    let asked = Asked { index, rows: &rows, queries: &data.queries, k: options.k };
    let (mut same, mut beside) = (Value::Null, Value::Null);
    if let Some(python) = &options.faiss {
        let files = exact::Files { python, base: &options.base, queries: &options.queries };
        beside = exact::beside(asked, files, options.turns)?;
        println!("{beside}");
    }
    if let Some(count) = options.verify_exact {
        let threads = options.threads.iter().copied().max().unwrap_or(1);
        let pool = Pool(rayon::ThreadPoolBuilder::new().num_threads(threads).build()?);
        same = exact::verify(asked, count, &pool)?;
        println!("{same}");
    }
    Ok(json!({"verified": same, "in_turns": beside}))
}

/// What the command line says.
struct Options {
    base: PathBuf,
    queries: PathBuf,
    truth: PathBuf,
    metric: Metric,
    index: Value,
    spec: IndexSpec,
    k: usize,
    threads: Vec<usize>,
    rounds: usize,
    sweep: Vec<Value>,
    targets: Vec<f64>,
    filters: Vec<f64>,
    verify_exact: Option<usize>,
    faiss: Option<String>,
    turns: usize,
    save: Option<PathBuf>,
    load: Option<PathBuf>,
    json: Option<PathBuf>,
}

impl Options {
    fn read() -> Outcome<Self> {
        let mut given: BTreeMap<String, String> = BTreeMap::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} has no value"))?;
            given.insert(name, value);
        }
        let mut take = |name: &str| given.remove(name);
        let need = |value: Option<String>, name: &str| {
            value.map(PathBuf::from).ok_or_else(|| format!("{name} is missing"))
        };
        let metric = take("--metric").unwrap_or_else(|| "cosine".into());
        let index = take("--index").unwrap_or_else(|| r#"{"index_type":"brute_force"}"#.into());
        let index: Value = serde_json::from_str(&index)?;
        let sweep = take("--sweep").map_or(Ok(Vec::new()), |text| serde_json::from_str(&text))?;
        let options = Self {
            base: need(take("--base"), "--base")?,
            queries: need(take("--queries"), "--queries")?,
            truth: need(take("--truth"), "--truth")?,
            metric: Metric::from_name(&metric).ok_or("--metric is cosine, dot or l2")?,
            spec: spec_of(&index)?,
            index,
            k: take("--k").map_or(Ok(10), |text| text.parse())?,
            threads: list(take("--threads").as_deref().unwrap_or("1,2"))?,
            rounds: take("--rounds").map_or(Ok(3), |text| text.parse())?,
            sweep,
            targets: list(take("--targets").as_deref().unwrap_or_default())?,
            filters: list(take("--filters").as_deref().unwrap_or_default())?,
            verify_exact: take("--verify-exact").map(|text| text.parse()).transpose()?,
            faiss: take("--faiss"),
            turns: take("--turns").map_or(Ok(200), |text| text.parse())?,
            save: take("--save").map(PathBuf::from),
            load: take("--load").map(PathBuf::from),
            json: take("--json").map(PathBuf::from),
        };
        match given.into_keys().next() {
            Some(unknown) => Err(format!("{unknown} is not an option").into()),
            None => Ok(options),
        }
    }
}

fn list<T: std::str::FromStr<Err: std::error::Error + 'static>>(text: &str) -> Outcome<Vec<T>> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    parts.map(|part| Ok(part.trim().parse()?)).collect()
}

/// The spec that the API's JSON asks for.
fn spec_of(index: &Value) -> Outcome<IndexSpec> {
    let numbers = |value: &Value, but: &str| -> Vec<(String, u64)> {
        let fields = value.as_object().into_iter().flatten().filter(|(name, _)| *name != but);
        let number = |value: &Value| value.as_u64().or(value.as_bool().map(u64::from));
        fields.filter_map(|(name, value)| Some((name.clone(), number(value)?))).collect()
    };
    let borrowed = |numbers: &[(String, u64)]| -> Vec<(String, u64)> { numbers.to_vec() };
    let structure = borrowed(&numbers(&index["index_config"], ""));
    let structure: Vec<(&str, u64)> =
        structure.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let quantization = numbers(&index["quantization_config"], "strategy");
    let quantization: Vec<(&str, u64)> =
        quantization.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let strategy = index["quantization_config"]["strategy"].as_str().unwrap_or("none");
    let kind = index["index_type"].as_str().unwrap_or("brute_force");
    let structure = Structure::new(kind, &structure)?;
    Ok(IndexSpec::new(structure, Quantization::new(strategy, &quantization)?)?)
}

/// Base vectors, queries and their nearest rows.
struct Data {
    metric: Metric,
    base: Npy,
    inverse_norms: Vec<f32>,
    queries: Vec<Vec<f32>>,
    truth: Npy,
}

impl Data {
    fn open(options: &Options) -> Outcome<Self> {
        let metric = options.metric;
        let base = Npy::open(&options.base, "<f4")?;
        let queries = Npy::open(&options.queries, "<f4")?;
        let truth = Npy::open(&options.truth, "<i4")?;
        if queries.shape[1] != base.shape[1] || truth.shape[0] != queries.shape[0] {
            return Err("base, queries and truth do not belong together".into());
        }
        if truth.shape[1] < options.k {
            return Err(format!("the truth has {} rows a query", truth.shape[1]).into());
        }
        let rows = base.values::<f32>().par_chunks_exact(base.shape[1]);
        let inverse_norms = rows.map(inverse_norm).collect::<Result<_, _>>()?;
        let unit = |query: &[f32]| -> Outcome<Vec<f32>> {
            let cosine = metric == Metric::Cosine;
            Ok(if cosine { normalized(query)?.0 } else { query.to_vec() })
        };
        let each = queries.values::<f32>().chunks_exact(queries.shape[1]);
        let queries = each.map(unit).collect::<Outcome<_>>()?;
        Ok(Self { metric, base, inverse_norms, queries, truth })
    }

    fn rows(&self) -> usize {
        self.base.shape[0]
    }

    fn dims(&self) -> usize {
        self.base.shape[1]
    }

    fn block(&self) -> RowBlock<'_> {
        RowBlock::new(self.dims(), self.base.values(), &self.inverse_norms)
    }

    /// The nearest rows of a query, by `index`.
    fn search(&self, index: &SegmentIndex, query: usize, k: usize, tuning: Tuning) -> Vec<u32> {
        let block = self.block();
        let rows = u32::try_from(self.rows()).unwrap_or(u32::MAX);
        let request = Request {
            vectors: &block,
            rows: (0, rows),
            query: &self.queries[query],
            k,
            spec: index.spec(),
            tuning,
            allowed: &AllRows,
            allowed_rows: rows,
        };
        let mut top = TopK::new(k);
        index.search(request, &mut top, |row| row.0);
        top.into_sorted().into_iter().map(|(_distance, row)| row).collect()
    }

    /// Of the true nearest, the share that is found.
    fn recall(&self, index: &SegmentIndex, k: usize, tuning: Tuning) -> f64 {
        let truth: &[i32] = self.truth.values();
        let hits: usize = (0..self.queries.len())
            .into_par_iter()
            .map(|query| {
                let nearest = &truth[query * self.truth.shape[1]..][..k];
                let found = self.search(index, query, k, tuning);
                let hit =
                    |row: &&u32| nearest.iter().any(|near| i64::from(*near) == i64::from(**row));
                found.iter().filter(hit).count()
            })
            .sum();
        hits as f64 / (self.queries.len() * k) as f64
    }
}

/// Threads for a build.
struct Pool(rayon::ThreadPool);

impl Executor for Pool {
    fn width(&self) -> usize {
        self.0.current_num_threads()
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.0.install(|| (0..tasks).into_par_iter().for_each(task));
    }
}

/// Loads the index, or builds it on as many threads as each entry asks for.
fn built(options: &Options, data: &Data) -> Outcome<(SegmentIndex, Value)> {
    if let Some(path) = &options.load {
        let index = read(path, options.spec, data)?;
        return Ok((index, json!({"seconds": [], "cpu_seconds": null, "threads": []})));
    }
    let (mut seconds, mut cpu, mut index) = (Vec::new(), 0.0, None);
    for threads in &options.threads {
        let pool = Pool(rayon::ThreadPoolBuilder::new().num_threads(*threads).build()?);
        let (started, used) = (Instant::now(), cpu_seconds());
        index = Some(SegmentIndex::build(options.spec, data.metric, &data.block(), &pool));
        seconds.push(started.elapsed().as_secs_f64());
        cpu = cpu_seconds() - used;
        println!("built in {:.2} s on {threads} threads", started.elapsed().as_secs_f64());
    }
    let index = index.ok_or("--threads names no number")?;
    if let Some(path) = &options.save {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        index.write(&mut SectionWriter::new(&mut file))?;
        file.flush()?;
    }
    let build = json!({"seconds": seconds, "cpu_seconds": cpu, "threads": options.threads});
    Ok((index, build))
}

fn read(path: &Path, spec: IndexSpec, data: &Data) -> Outcome<SegmentIndex> {
    let bytes = std::fs::read(path)?;
    // At an address that is aligned, as a mapped file is.
    let mut aligned = vec![0_u64; bytes.len().div_ceil(8)];
    let aligned = &mut bytemuck::cast_slice_mut(&mut aligned)[..bytes.len()];
    aligned.copy_from_slice(&bytes);
    drop(bytes);
    let rows = u32::try_from(data.rows())?;
    let mut from = SectionReader::new(aligned);
    Ok(SegmentIndex::read(&mut from, spec, data.metric, data.dims(), rows)?)
}

fn tuning_of(setting: &Value) -> Tuning {
    let ef_search = setting["ef_search"].as_u64().and_then(|ef| u32::try_from(ef).ok());
    let nprobe = setting["nprobe"].as_u64().and_then(|lists| u32::try_from(lists).ok());
    let exact = setting["exact"].as_bool().unwrap_or(false);
    Tuning { ef_search, nprobe, exact, ..Tuning::default() }
}

/// The least `ef_search` that reaches a recall, by halving.
fn least_for(options: &Options, data: &Data, index: &SegmentIndex, target: f64) -> Option<Value> {
    if index.is_scan() {
        return Some(json!({}));
    }
    let reaches = |ef: u32| {
        let tuning = Tuning { ef_search: Some(ef), nprobe: Some(ef), ..Tuning::default() };
        data.recall(index, options.k, tuning) >= target
    };
    let lists = matches!(index.spec().structure, Structure::Ivf { .. });
    let start = if lists { 1 } else { u32::try_from(options.k).unwrap_or(EF_MAX).max(1) };
    if !reaches(EF_MAX) {
        return None;
    }
    let (mut low, mut high) = (start, start);
    while !reaches(high) {
        low = high + 1;
        high = (high * 2).min(EF_MAX);
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if reaches(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    let name = if lists { "nprobe" } else { "ef_search" };
    Some(json!({name: high, "target": target}))
}

fn measure(options: &Options, data: &Data, index: &SegmentIndex, setting: &Value) -> Value {
    let (k, tuning) = (options.k, tuning_of(setting));
    let recall = data.recall(index, k, tuning);
    let deep = (data.truth.shape[1] >= 100 && k == 10).then(|| data.recall(index, 100, tuning));
    let (mut rounds, mut rates): (Vec<Value>, Vec<Vec<f64>>) =
        (Vec::new(), vec![Vec::new(); options.threads.len()]);
    for _round in 0..options.rounds.max(1) {
        let mut round = BTreeMap::new();
        for (threads, rates) in options.threads.iter().zip(&mut rates) {
            let rate = queries_per_second(data, index, k, tuning, *threads);
            rates.push(rate);
            round.insert(threads.to_string(), rate);
        }
        rounds.push(json!(round));
    }
    let times = latencies(data, index, k, tuning);
    let qps: BTreeMap<String, f64> =
        options.threads.iter().map(usize::to_string).zip(rates.iter().map(|r| median(r))).collect();
    let (ten, hundred) = if k == 100 { (None, Some(recall)) } else { (Some(recall), deep) };
    json!({
        "parameters": setting,
        "recall_at_10": ten,
        "recall_at_100": hundred,
        "qps": qps,
        "p50_ms": at(&times, 0.5) * 1e3,
        "p99_ms": at(&times, 0.99) * 1e3,
        "rounds": rounds,
    })
}

/// Threads that take one query after the other.
fn queries_per_second(
    data: &Data,
    index: &SegmentIndex,
    k: usize,
    tuning: Tuning,
    threads: usize,
) -> f64 {
    let (next, started) = (AtomicUsize::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _thread in 0..threads {
            scope.spawn(|| {
                while started.elapsed() < MEASURE {
                    // Several at a time, so that the clock costs nothing.
                    let first = next.fetch_add(16, Ordering::Relaxed);
                    for query in first..first + 16 {
                        black_box(data.search(index, query % data.queries.len(), k, tuning));
                    }
                }
            });
        }
    });
    next.into_inner() as f64 / started.elapsed().as_secs_f64()
}

/// Seconds that single searches take, one after the other.
fn latencies(data: &Data, index: &SegmentIndex, k: usize, tuning: Tuning) -> Vec<f64> {
    let until = Instant::now() + 4 * MEASURE;
    let mut times = Vec::new();
    while times.len() < LATENCIES && Instant::now() < until {
        let started = Instant::now();
        black_box(data.search(index, times.len() % data.queries.len(), k, tuning));
        times.push(started.elapsed().as_secs_f64());
    }
    times
}

/// Processor time of this process, in seconds, where the system says so.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
    // Linux counts hundredths of a second here.
    ticks / 100.0
}
