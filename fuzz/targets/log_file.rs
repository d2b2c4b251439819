//! A log's last file, behind a good header and with right frame checksums: checked, repaired,
//! opened and read. What a check finds sound opens; a repaired log is sound.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use arrwdb_fuzz::log_file;
use arrwdb_log::disk::Disk;
use arrwdb_log::memory::MemoryDisk;
use arrwdb_log::{FileLog, Log, LogOptions, Rescue, check, repair};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let dir = Path::new("/log");
    for bytes in [bytes.to_vec(), log_file(bytes)] {
        let disk = MemoryDisk::new();
        let written = disk
            .create_dir_all(dir)
            .and_then(|()| disk.create(&dir.join("00000000000000000001.log")))
            .and_then(|file| file.write_all_at(&bytes, 0));
        written.expect("a disk in memory takes it");
        let Ok(report) = check(&disk, dir) else { continue };
        let open = || FileLog::open(Arc::new(disk.clone()), dir, LogOptions::default());
        assert_eq!(open().is_ok(), report.fault_count == 0, "{report:?}");
        if report.fault_count > 0 {
            repair(&disk, dir, Rescue::default()).expect("it can be repaired");
        }
        let (log, _) = open().expect("it opens now");
        let after = log.first() - 1;
        assert!(log.read(after).expect("not trimmed").all(|record| record.is_ok()));
    }
});
