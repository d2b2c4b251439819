//! Files that are read through in the background.

use std::path::Path;

use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::{Engine, ScrubReport};

use crate::faults::{files, filled};
use crate::subject::*;

/// The first pass begins when the engine opens.
async fn first_pass(engine: &Engine) -> ScrubReport {
    loop {
        let report = engine.health().scrub;
        if report.passes > 0 {
            return report;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_directory_is_read_through_and_nothing_found() {
    let disk = MemoryDisk::new();
    filled(&disk).await;
    let engine = open(&disk).await;
    let report = first_pass(&engine).await;
    assert!(report.files >= 2, "a manifest and a segment at least: {report:?}");
    assert!(report.completed_at.is_some());
    assert_eq!((report.damaged, report.findings.len()), (0, 0), "{report:?}");
    assert_eq!(engine.health().libraries_open, 0, "nothing is opened for it");
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_anywhere_in_a_segment_is_found_by_file() {
    let disk = MemoryDisk::new();
    filled(&disk).await;
    let path = files(&disk, Path::new("/data"), ".seg").remove(0);
    let mut length = 0;
    disk.alter(&path, |bytes| length = bytes.len()).unwrap();
    for at in [0, length / 3, length / 2, length - 1] {
        let flipped = disk.crash(|| true);
        flipped.alter(&path, |bytes| bytes[at] ^= 4).unwrap();
        let engine = open(&flipped).await;
        let report = first_pass(&engine).await;
        assert_eq!(report.damaged, 1, "byte {at} of {length}: {report:?}");
        let finding = &report.findings[0];
        assert!(finding.contains(&path.display().to_string()), "{finding}");
        engine.close().await.unwrap();
    }
}
