//! tantivy over the same passages and queries as our keyword search: the size of its index, and how
//! long the ten best of a query take on one thread. See README.md beside this package.

mod index;
mod options;
mod texts;

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};
use tantivy::tokenizer::{
    Language, LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer, StopWordFilter, TextAnalyzer,
};

use crate::index::Built;
use crate::options::Options;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Characters from which on tantivy's own `en_stem` drops a word.
const LONG: usize = 40;

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Outcome<()> {
    let passages = texts::passages(&options.passages)?;
    let queries = texts::queries(&options.queries)?;
    let mut figures = json!({
        "tantivy": tantivy::version_string(),
        "passages": passages.len(),
        "queries": queries.len(),
        "rounds": options.rounds,
        "k": index::K,
        "configurations": {},
    });
    for (name, analyzer) in [("en_stem", None), ("en_stem_stop", Some(without_stop_words()?))] {
        let built = Built::new(&options.folder.join(name), name, analyzer, &passages)?;
        let measured = measure(&built, &queries, options.rounds)?;
        println!("{name}: {measured:#}");
        figures["configurations"][name] = measured;
    }
    if let Some(path) = &options.json {
        std::fs::write(path, format!("{figures:#}\n"))?;
    }
    Ok(())
}

/// tantivy's `en_stem` without the English words that Lucene leaves out.
fn without_stop_words() -> Outcome<TextAnalyzer> {
    let stop_words = StopWordFilter::new(Language::English).ok_or("no English stop words")?;
    Ok(TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(LONG))
        .filter(LowerCaser)
        .filter(stop_words)
        .filter(Stemmer::new(Language::English))
        .build())
}

/// Every query in each round, and one round before that does not count.
fn measure(built: &Built, queries: &[String], rounds: usize) -> Outcome<Value> {
    let mut search = built.search()?;
    let mut found = 0;
    for query in queries {
        found += search.best(query)?;
    }
    let mut micros = Vec::with_capacity(queries.len() * rounds);
    for _ in 0..rounds {
        for query in queries {
            let began = Instant::now();
            std::hint::black_box(search.best(query)?);
            micros.push(began.elapsed().as_secs_f64() * 1e6);
        }
    }
    micros.sort_by(f64::total_cmp);
    Ok(json!({
        "bytes": built.bytes,
        "bytes_by_kind": built.bytes_by_kind,
        "add_seconds": built.add_seconds,
        "merge_seconds": built.merge_seconds,
        "segments_before_merge": built.segments_before_merge,
        "results": found,
        "terms_per_query": search.terms as f64 / search.asked as f64,
        "p50_us": quantile(&micros, 0.5),
        "p99_us": quantile(&micros, 0.99),
        "mean_us": micros.iter().sum::<f64>() / micros.len() as f64,
    }))
}

/// The value that this share of the sorted ones stays below.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = (sorted.len() as f64 * share) as usize;
    sorted[place.min(sorted.len() - 1)]
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A folder that goes with the test.
    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn built(name: &str, analyzer: Option<TextAnalyzer>, passages: &[&str]) -> (Built, Folder) {
        let folder =
            std::env::temp_dir().join(format!("tantivy-side-{}-{name}", std::process::id()));
        let passages: Vec<String> = passages.iter().map(|&text| text.to_owned()).collect();
        let built = Built::new(&folder, name, analyzer, &passages).unwrap();
        (built, Folder(folder))
    }

    const PASSAGES: [&str; 3] = ["Title\nThe cats run", "a cat and a dog", "nothing"];

    #[test]
    fn any_stem_of_the_query_finds_a_passage_and_operators_are_words() {
        let (built, _folder) = built("en_stem", None, &PASSAGES);
        let mut search = built.search().unwrap();
        for (query, found) in
            [("cat", 2), ("titles", 1), ("running dogs", 2), ("the", 1), ("", 0), ("-cat \"", 2)]
        {
            assert_eq!(search.best(query).unwrap(), found, "{query}");
        }
    }

    #[test]
    fn stop_words_find_nothing_and_repeated_terms_count_once() {
        let (built, _folder) =
            built("en_stem_stop", Some(without_stop_words().unwrap()), &PASSAGES);
        let mut search = built.search().unwrap();
        assert_eq!(search.best("the and a").unwrap(), 0);
        assert_eq!(search.terms, 0_usize);
        assert_eq!(search.best("the cat, the cats, the dog").unwrap(), 2);
        assert_eq!((search.terms, search.asked), (2, 2));
    }

    #[test]
    fn ten_are_found_of_more() {
        let (built, _folder) = built("many", Some(without_stop_words().unwrap()), &["word"; 25]);
        assert_eq!(built.search().unwrap().best("word").unwrap(), index::K);
        assert!(built.bytes_by_kind.contains_key("pos"), "{:?}", built.bytes_by_kind);
        assert_eq!(built.bytes, built.bytes_by_kind.values().sum::<u64>());
    }

    #[test]
    fn quantiles_are_of_the_sorted_times() {
        let times: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&times, 0.5), 51.0);
        assert_eq!(quantile(&times, 0.99), 100.0);
        assert_eq!(quantile(&[3.0], 0.99), 3.0);
    }
}
