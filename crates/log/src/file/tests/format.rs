//! The bytes: they never change once released, and no bytes make the reader panic.

use proptest::prelude::*;

use super::*;
use crate::file::recover::file_path;
use crate::frame::{self, FrameHeader, Kind};

/// Compares with a file of the `golden` folder; with `UPDATE` set, writes it.
fn check_golden(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    assert!(std::fs::read(&path).unwrap() == bytes, "{name} differs; UPDATE=1 rewrites it");
}

#[test]
fn golden_frames_of_every_kind() {
    let header = frame::FileHeader { first: 8, previous: 5, salt: 0x0123_4567_89ab_cdef };
    let mut bytes = header.encode().to_vec();
    let kinds = [(Kind::Whole, 0, 8), (Kind::Part, 0, 9), (Kind::Commit, 1, 9), (Kind::Mark, 0, 9)];
    for (kind, part, seq) in kinds {
        let group = if kind == Kind::Mark { bytes.len() as u64 } else { 64 };
        let frame = FrameHeader { kind, part, seq, group, stream: A };
        let length = bytes.len();
        frame::encode(&mut bytes, header.seed(), &frame, |out| {
            out.extend_from_slice(&payload(seq, usize::from(kind != Kind::Mark) * 13));
        });
        let (decoded, inner) = frame::decode(&bytes[length..], header.seed()).unwrap();
        assert_eq!(decoded, frame);
        assert_eq!(bytes.len() - length, frame::framed(inner.len()));
    }
    check_golden("frames-1.bin", &bytes);
    assert_eq!(frame::FileHeader::decode(bytes.first_chunk().unwrap()), Ok(header));
}

#[test]
fn golden_files_of_a_small_log() {
    let (log, _) = open(&MemoryDisk::new()).unwrap();
    for n in 1..=12 {
        let stream = if n % 3 == 0 { B } else { Stream::CATALOG };
        put(&log, stream, &payload(n, 30 * usize::try_from(n).unwrap())).unwrap();
    }
    log.close().unwrap();
    for extension in ["log", "idx"] {
        for path in paths(log.disk(), extension) {
            let name = path.file_name().unwrap().to_str().unwrap();
            check_golden(name, &bytes_of(log.disk(), &path));
        }
    }
}

/// The golden log must be readable by every later release.
#[test]
fn the_golden_log_opens() {
    let disk = MemoryDisk::new();
    disk.create_dir_all(Path::new("/log")).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    for name in OsDisk.list(&golden).unwrap() {
        let file = disk.create(&Path::new("/log").join(&name)).unwrap();
        file.write_all_at(&std::fs::read(golden.join(&name)).unwrap(), 0).unwrap();
    }
    let report = check(&disk, Path::new("/log")).unwrap();
    assert_eq!((report.faults, report.records, report.last), (vec![], 12, 12));
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!((recovery.last, recovery.torn_tail), (12, None));
    for record in all(&log) {
        let n = record.seq;
        assert!(record.payload == payload(n, 30 * usize::try_from(n).unwrap()));
    }
    assert_eq!(log.read_stream(B, 3).unwrap().count(), 3);
}

#[test]
fn a_newer_format_is_refused_as_such() {
    let log = MemoryLog::new().unwrap();
    put(&log, A, b"x").unwrap();
    let newer = |bytes: &mut Vec<u8>| {
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    };
    log.disk().alter(&file_path(Path::new("/log"), 1), newer).unwrap();
    assert!(matches!(log.crash(), Err(LogError::Newer { version: 2, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Any bytes, after a good header or none, with good frames' bytes mixed in.
    #[test]
    fn any_bytes_open_or_are_refused_without_a_panic(
        noise in prop::collection::vec(any::<u8>(), 0..3000),
        keep in 0_usize..2000,
        small in any::<bool>(),
    ) {
        let (log, _) = open(&MemoryDisk::new()).unwrap();
        for n in 1..=12 {
            put(&log, A, &payload(n, 200)).unwrap();
        }
        let path = paths(log.disk(), if small { "idx" } else { "log" })[0].clone();
        let disk = log.disk().crash(|| true);
        disk.alter(&path, |bytes| {
            bytes.truncate(keep);
            bytes.extend_from_slice(&noise);
        }).unwrap();
        let report = check(&disk, Path::new("/log")).unwrap();
        match open(&disk) {
            Ok((log, _)) => {
                let outcome: Result<Vec<_>, _> = log.read(0).unwrap().collect();
                prop_assert_eq!(outcome.is_ok(), report.fault_count == 0);
                let outcome: Result<Vec<_>, _> = log.read_stream(A, 0).unwrap().collect();
                prop_assert_eq!(outcome.is_ok(), report.fault_count == 0);
            }
            Err(error) => {
                prop_assert!(matches!(error, LogError::Damaged { .. }), "{}", error);
                prop_assert!(report.fault_count > 0);
            }
        }
    }
}
