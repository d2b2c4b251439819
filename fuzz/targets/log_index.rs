//! An index beside a sealed log file: whatever it holds, the log's records are read back.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use arrwdb_fuzz::log_index;
use arrwdb_log::disk::Disk;
use arrwdb_log::memory::MemoryDisk;
use arrwdb_log::{FileLog, Log, LogOptions, Stream};
use libfuzzer_sys::fuzz_target;

const SEALED: &[u8] = include_bytes!("../../crates/log/golden/00000000000000000001.log");
const ACTIVE: &[u8] = include_bytes!("../../crates/log/golden/00000000000000000010.log");

fuzz_target!(|bytes: &[u8]| {
    let dir = Path::new("/log");
    for bytes in [bytes.to_vec(), log_index(bytes)] {
        let disk = MemoryDisk::new();
        disk.create_dir_all(dir).expect("a directory");
        for (name, bytes) in [
            ("00000000000000000001.log", SEALED),
            ("00000000000000000010.log", ACTIVE),
            ("00000000000000000001.idx", &bytes),
        ] {
            let file = disk.create(&dir.join(name)).expect("a new file");
            file.write_all_at(bytes, 0).expect("a disk in memory takes it");
        }
        let opened = FileLog::open(Arc::new(disk.clone()), dir, LogOptions::default());
        let Ok((log, _)) = opened else { continue };
        for stream in [Stream::CATALOG, Stream([1; 16]), Stream([2; 16])] {
            // An index whose checksums were forged may point anywhere; it is never believed.
            let records = log.read_stream(stream, 0).expect("it can be begun");
            records.take_while(Result::is_ok).for_each(drop);
        }
        log.read(0).expect("not trimmed").take_while(Result::is_ok).for_each(drop);
    }
});
