//! One flipped byte anywhere in any file: refused by file and offset, or without effect; and found
//! by a check in any case. Never wrong, never a panic.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrwdb_engine::EngineError;
use arrwdb_engine::check::{Report, Silent, check};
use arrwdb_engine::log::memory::MemoryDisk;

use crate::directory::*;

/// Offsets of one file at which the engine is opened; more take minutes. A number in `FLIPS`
/// replaces it and the next.
const OPENED: usize = 12;
/// Offsets of one file that only a check has to find.
const CHECKED: usize = 60;

/// A different place and bit each time, the same in every run.
struct Places(u64);

impl Places {
    fn next(&mut self, below: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % below as u64).unwrap()
    }

    /// All offsets of a small file; the ends and some others of a large one.
    fn of(&mut self, length: usize, count: usize) -> Vec<usize> {
        if length <= count {
            return (0..length).collect();
        }
        let ends = [0, 9, 13, 60, length - 1];
        let mut places: Vec<usize> = ends.into_iter().filter(|at| *at < length).collect();
        places.extend((places.len()..count).map(|_nth| self.next(length)));
        places
    }
}

/// How many offsets are tried.
fn asked(usual: usize) -> usize {
    std::env::var("FLIPS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

fn flipped(disk: &MemoryDisk, path: &Path, at: usize, bit: u8) -> MemoryDisk {
    let other = disk.crash(|| true);
    other.alter(path, |bytes| bytes[at] ^= bit).unwrap();
    other
}

fn checked(disk: &MemoryDisk) -> Report {
    check(Arc::new(disk.clone()), Path::new(ROOT), &Silent).unwrap()
}

/// Whether a refusal says where.
fn names(error: &EngineError, path: &Path) -> bool {
    let text = error.to_string();
    let place = text.contains("offset ") || text.contains("byte ");
    let file = text.contains(&path.display().to_string());
    file && (place || path.ends_with("VERSION"))
}

/// A directory with something in every segment that is read. A segment all of whose documents were
/// replaced since may wait for its merge: what is wrong with it changes nothing then, and only a
/// check can say so.
async fn read_throughout() -> MemoryDisk {
    for _try in 0..20 {
        let disk = directory().await;
        let mut passed_over = 0;
        for path in named(&disk, ".seg") {
            let first_vector = 256;
            passed_over += u32::from(read(&flipped(&disk, &path, first_vector, 1)).await.is_ok());
        }
        if passed_over == 0 {
            return disk;
        }
    }
    panic!("20 directories with segments of which nothing is read");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_flipped_byte_is_refused_by_name_or_changes_nothing_and_a_check_finds_it() {
    let disk = read_throughout().await;
    let wanted = read(&disk.crash(|| true)).await.unwrap();
    let sound = checked(&disk);
    assert_eq!(sound.findings.kept, []);
    let opened = asked(OPENED);
    let mut places = Places(20_240_601);
    let mut outcomes: BTreeMap<(PathBuf, &str), u32> = BTreeMap::new();
    for path in files(&disk).into_iter().filter(|path| !path.ends_with("LOCK")) {
        for at in places.of(length(&disk, &path), opened) {
            let bit = 1 << places.next(8);
            let disk = flipped(&disk, &path, at, bit);
            let report = checked(&disk);
            assert_ne!(report.findings, sound.findings, "{} {at} {bit}", path.display());
            let outcome = match read(&disk).await {
                Ok(answers) => {
                    assert!(answers == wanted, "{} {at} {bit}: wrong answers", path.display());
                    assert!(report.is_sound() || path.starts_with("/data/log"), "{report:?}");
                    "no effect"
                }
                Err(error) => {
                    assert!(matches!(error, EngineError::Damaged { .. }), "{error}");
                    assert!(names(&error, &path), "{} {at} {bit}: {error}", path.display());
                    assert!(!report.is_sound(), "{} {at} {bit}: {error}", path.display());
                    "refused"
                }
            };
            *outcomes.entry((path.clone(), outcome)).or_default() += 1;
        }
    }
    let refused = |part: &str| {
        let of_part = |(path, outcome): &(PathBuf, &str)| {
            path.to_string_lossy().contains(part) && *outcome == "refused"
        };
        outcomes.keys().any(of_part)
    };
    for part in [".log", "catalog-", "manifest-", ".seg", "VERSION"] {
        assert!(refused(part), "{part}: {outcomes:?}");
    }
    for part in [".idx", ".kwd"] {
        assert!(!refused(part), "{part} is made anew: {outcomes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_finds_every_flipped_byte() {
    let disk = directory().await;
    let sound = checked(&disk);
    let (mut places, checked_at, mut flips) = (Places(7), asked(CHECKED), 0);
    for path in files(&disk).into_iter().filter(|path| !path.ends_with("LOCK")) {
        for at in places.of(length(&disk, &path), checked_at) {
            let bit = 1 << places.next(8);
            let report = checked(&flipped(&disk, &path, at, bit));
            let about = |finding: &&arrwdb_engine::check::Finding| finding.path == path;
            let found = report.findings.kept.iter().find(about);
            let found = found.unwrap_or_else(|| panic!("{} {at}: {report:?}", path.display()));
            assert!(found.offset.is_some() || found.remedy.is_repairable(), "{found:?}");
            assert_ne!(report.findings, sound.findings);
            flips += 1;
        }
    }
    println!("{flips} flipped bytes, each found by a check");
}
