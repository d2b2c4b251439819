//! S2: what this crate may not do, looked for in its sources.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Clock, randomness, I/O, async, threads, and maps whose order differs from run to run.
const FORBIDDEN: [&str; 14] = [
    "std::time",
    "Instant::now",
    "SystemTime",
    "rand::",
    "getrandom",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "async fn",
    ".await",
    "HashMap",
    "HashSet",
];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let nested = |path: PathBuf| if path.is_dir() { sources(&path) } else { vec![path] };
    entries.flat_map(nested).collect()
}

#[test]
fn s2_no_clock_randomness_io_or_async() {
    let files = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(files.len() > 20, "the sources are found");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in FORBIDDEN {
                // `Operand::` is no `rand::`.
                let begins =
                    |at: usize| !code[..at].ends_with(|before: char| before.is_alphanumeric());
                let found = code.match_indices(word).any(|(at, _)| begins(at));
                assert!(!found, "{}:{}: {word}", file.display(), number + 1);
            }
        }
    }
}
